package substituter_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// Requests as no well-behaved client sends them. None is answered as another one,
// and no cache hears of any.
func TestOddRequests(t *testing.T) {
	l := newLab(t)
	p := l.path("p", small)
	l.cache.add(p)
	l.start()
	const local = "Host: localhost\r\n"
	part := strings.Repeat("0", 32)
	for request, want := range map[string]int{
		// Whom a request is for says its first line before the header.
		"GET http://evil.example/nix-cache-info HTTP/1.1\r\n" + local:                        421,
		"GET http://localhost/nix-cache-info HTTP/1.1\r\nHost: evil.example\r\n":             200,
		"GET /nix-cache-info HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n":          400,
		"GET /nix-cache-info HTTP/1.1\r\n":                                                   400,
		"GET /nix-cache-info HTTP/1.0\r\n":                                                   421,
		"GET /nix-cache-info HTTP/1.1\r\nHost: local host\r\n":                               400,
		"GET /nix-cache-info HTTP/1.1\r\nHost: localhost@evil.example\r\n":                   400,
		"GET /nar%2f..%2fnix-cache-info HTTP/1.1\r\n" + local:                                404,
		"GET /nar/%2e%2e/nix-cache-info HTTP/1.1\r\n" + local:                                404,
		"GET /%2fnix-cache-info HTTP/1.1\r\n" + local:                                        404,
		"GET //localhost/nix-cache-info HTTP/1.1\r\n" + local:                                404,
		"GET /nix-cache-info%00 HTTP/1.1\r\n" + local:                                        404,
		"GET /./nix-cache-info HTTP/1.1\r\n" + local:                                         404,
		"GET /../../etc/passwd.narinfo HTTP/1.1\r\n" + local:                                 404,
		"GET /log/..%2f" + part + "-x.drv HTTP/1.1\r\n" + local:                              404,
		"GET /" + part + ".ls%2f.. HTTP/1.1\r\n" + local:                                     404,
		"GET nix-cache-info HTTP/1.1\r\n" + local:                                            400,
		"CONNECT localhost:22 HTTP/1.1\r\n" + local:                                          405,
		"TRACE /nix-cache-info HTTP/1.1\r\n" + local:                                         405,
		"get /nix-cache-info HTTP/1.1\r\n" + local:                                           405,
		"GET /nix-cache-info HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" + local:             400,
		"GET /nix-cache-info HTTP/1.1\r\nContent-Length: 5\r\n" + local:                      400,
		"GET /nix-cache-info HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n" + local: 400,
		"GET /nix-cache-info HTTP/1.1\r\nX: " + strings.Repeat("x", 64<<10) + "\r\n" + local: 431,
		"GET /" + strings.Repeat("x", 64<<10) + " HTTP/1.1\r\n" + local:                      431,
		"GET /nix-cache-info HTTP/1.1\r\n" + local:                                           200,
	} {
		line, _, _ := strings.Cut(request, "\r\n")
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(l.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, request+"Connection: close\r\n\r\n") // The server may have ended it before.
		answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Errorf("%.80s: %v", line, err)
		} else if answer.StatusCode != want {
			t.Errorf("%.80q is answered with %d, want %d", request, answer.StatusCode, want)
		}
		conn.Close()
	}
	l.cache.mu.Lock()
	defer l.cache.mu.Unlock()
	for _, name := range l.cache.asked {
		if name != "nix-cache-info" { // by which the daemon finds out whether there is a cache
			t.Errorf("the cache was asked for %q", name)
		}
	}
}
