package substituter_test

import (
	"bufio"
	"bytes"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"regexp"
	"strings"
	"testing"

	"go.uber.org/zap"
)

// upstreamName is what a cache may be asked for: nothing that leads out of it.
var upstreamName = regexp.MustCompile(`^([0-9a-z]{32}\.(narinfo|ls)|nar/[A-Za-z0-9._-]+|log/[0-9a-z]{32}-[A-Za-z0-9+._?=-]+|realisations/sha256:[0-9a-z]+![A-Za-z0-9+._?=-]+|nix-cache-info)$`)

// FuzzRequest sends requests, from the first line on, as anybody on this machine
// and any web page may. Only those get something that name this server and only
// read, and no cache is asked for what is no file of a cache.
func FuzzRequest(f *testing.F) {
	l := newLab(f)
	l.deps.Log = zap.NewNop()
	p := l.path("p", small)
	l.cache.add(p)
	l.start()
	for _, line := range []string{
		"GET /nix-cache-info", "HEAD " + p.narinfoURL(), "GET " + p.narURL(), "GET " + p.narURL() + "?x=%2f..", "GET http://evil.example/nix-cache-info",
		"POST /", "GET //nix-cache-info", "GET /%2e%2e/nix-cache-info", "GET /nar%2f" + p.narURL()[5:], "GET /log/" + strings.Repeat("0", 32) + "-x.drv",
		"GET /realisations/sha256:" + strings.Repeat("ab", 32) + "!out.doi", "OPTIONS *", "GET /" + strings.Repeat("0", 32) + ".ls", "CONNECT localhost:1",
	} {
		for _, host := range []string{"localhost:8460", "evil.example", "[::1]", "127.0.0.1", ""} {
			f.Add([]byte(line + " HTTP/1.1\r\nHost: " + host + "\r\nRange: bytes=5-\r\n\r\n"))
		}
	}
	handler := l.server.Handler()
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(data)))
		if err != nil || r.RequestURI == "*" {
			return // a server answers by itself
		}
		answer := httptest.NewRecorder()
		func() {
			defer func() {
				if reason := recover(); reason != nil {
					if err, ok := reason.(error); !ok || !errors.Is(err, http.ErrAbortHandler) {
						panic(reason)
					}
				}
			}()
			handler.ServeHTTP(answer, r.WithContext(t.Context()))
		}()
		switch {
		case answer.Code >= http.StatusInternalServerError:
			t.Errorf("%q is answered with %d", data, answer.Code)
		case answer.Code >= http.StatusMultipleChoices:
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			t.Errorf("%s is answered with %d", r.Method, answer.Code)
		case !local(r.Host):
			t.Errorf("host %q is answered with %d", r.Host, answer.Code)
		case answer.Code == http.StatusOK && strings.Contains(r.URL.Path, ".nar") && !strings.HasSuffix(r.URL.Path, ".narinfo") &&
			r.Method == http.MethodGet && !bytes.Equal(answer.Body.Bytes(), p.nar):
			t.Errorf("%q is answered with other bytes", data)
		}
		l.cache.mu.Lock()
		defer l.cache.mu.Unlock()
		for _, name := range l.cache.asked {
			if !upstreamName.MatchString(name) {
				t.Errorf("%q: the cache was asked for %q", data, name)
			}
		}
		l.cache.asked = nil
	})
}

// local reports whether a Host header names this machine and nothing else.
func local(header string) bool {
	host, _, err := net.SplitHostPort(header)
	if err != nil {
		host = strings.Trim(header, "[]")
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || err == nil && ip.Unmap().IsLoopback()
}
