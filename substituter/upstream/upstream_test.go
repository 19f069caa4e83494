package upstream_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/andybalholm/brotli"
	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"github.com/nar-p2p/nar-p2p/internal/cachetest"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/substituter/upstream"
)

const part = "00bgd045z0d4icpbc2yyz4gx48ak44la"

func genuine(t *testing.T) (text, nar []byte, info *narinfo.Info) {
	t.Helper()
	text, err := cachetest.FS.ReadFile("narinfo/" + part + ".narinfo")
	if err != nil {
		t.Fatal(err)
	}
	nar, err = cachetest.FS.ReadFile("nar/" + part + ".nar")
	if err != nil {
		t.Fatal(err)
	}
	info, err = narinfo.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return text, nar, info
}

func hashPart(t *testing.T) nix.HashPart {
	t.Helper()
	p, err := nix.ParseHashPart(part)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// client returns a client of a server with this handler.
func client(t *testing.T, cfg upstream.Config, h http.HandlerFunc) *upstream.Client {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	u, err := url.Parse(cfg.URL)
	if err != nil {
		t.Fatal(err)
	}
	u.Scheme, u.Host = "http", server.Listener.Addr().String()
	cfg.URL = u.String()
	c, err := upstream.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdleConnections)
	return c
}

func TestNarinfo(t *testing.T) {
	text, _, info := genuine(t)
	var brotlied bytes.Buffer
	bw := brotli.NewWriter(&brotlied)
	_, _ = bw.Write(text)
	_ = bw.Close()

	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
	}
	body := func(encoding string, b []byte) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			if encoding != "" {
				w.Header().Set("Content-Encoding", encoding)
			}
			_, _ = w.Write(b)
		}
	}
	const found, absent, broken = "found", "absent", "broken"
	for _, tt := range []struct {
		name    string
		private bool
		handler http.HandlerFunc
		want    string
	}{
		{"found", false, body("", text), found},
		{"found in gzip", false, body("gzip", compress(t, "gzip", text)), found},
		{"found in zstd", false, body("zstd", compress(t, "zstd", text)), found},
		{"found in brotli, as cache.nixos.org's listings are", false, body("br", brotlied.Bytes()), found},
		{"404", false, status(404), absent},
		{"410", false, status(410), absent},
		{"403, as S3 says for 404", false, status(403), absent},
		{"403 from a private cache: perhaps the password", true, status(403), broken},
		{"404 from a private cache", true, status(404), absent},
		{"401", false, status(401), broken},
		{"429", false, status(429), broken},
		{"500", false, status(500), broken},
		{"206 unasked", false, status(206), broken},
		{"captive portal", false, body("", []byte("<html>Please log in</html>\n")), broken},
		{"bad final newline", false, body("", bytes.TrimSuffix(text, []byte("\n"))), broken},
		{"another path", false, body("", bytes.ReplaceAll(text, []byte("/"+part), []byte("/1"+part[1:]))), broken},
		{"too long when unpacked", false, body("zstd", compress(t, "zstd", bytes.Repeat([]byte("X: y\n"), 1<<20))), broken},
		{"too long", false, body("", bytes.Repeat([]byte("X: y\n"), narinfo.MaxSize/5+1)), broken},
		{"unknown encoding", false, body("rot13", text), broken},
		{"not what it says", false, body("zstd", text), broken},
		{"cut", false, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100000")
			_, _ = w.Write(text)
			panic(http.ErrAbortHandler)
		}, broken},
		{"reset", false, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, broken},
		{"redirected for ever", false, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.Path, http.StatusFound)
		}, broken},
		{"redirected to another scheme", false, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "file:///etc/passwd", http.StatusFound)
		}, broken},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := client(t, upstream.Config{Private: tt.private}, tt.handler)
			got, err := c.Narinfo(t.Context(), hashPart(t))
			result := broken
			switch {
			case err == nil:
				result = found
			case errors.Is(err, upstream.ErrAbsent):
				result = absent
			}
			if result != tt.want {
				t.Fatalf("Narinfo = %v, which is %s, want %s", err, result, tt.want)
			}
			if diff := cmp.Diff(info, got, cmp.AllowUnexported(nix.StorePath{})); err == nil && diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestNarinfoEndsWithItsContext(t *testing.T) {
	hang := make(chan struct{})
	c := client(t, upstream.Config{}, func(http.ResponseWriter, *http.Request) { <-hang })
	defer close(hang)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Narinfo(ctx, hashPart(t)); err == nil || errors.Is(err, upstream.ErrAbsent) {
		t.Errorf("Narinfo of a silent cache = %v", err)
	}
}

func TestAddress(t *testing.T) {
	for _, tt := range []struct {
		in, want string
		private  bool
	}{
		{"https://cache.nixos.org", "https://cache.nixos.org", false},
		{"https://cache.nixos.org/?priority=10&trusted=1", "https://cache.nixos.org", false},
		{"http://10.0.0.1:5000/nix/", "http://10.0.0.1:5000/nix", false},
		{"https://me:secret@cache.example.org/a", "https://cache.example.org/a", true},
		{"file:///var/cache", "", false},
		{"s3://bucket", "", false},
		{"cache.nixos.org", "", false},
		{"https://", "", false},
		{"https://:443/x", "", false},
		{"https://me:secret@[::1", "", false},
	} {
		c, err := upstream.New(upstream.Config{URL: tt.in})
		if (err != nil) != (tt.want == "") {
			t.Errorf("New(%q) = %v, want %q", tt.in, err, tt.want)
			continue
		}
		if err != nil {
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("New(%q) tells the password: %v", tt.in, err)
			}
			continue
		}
		if c.String() != tt.want || c.Private() != tt.private {
			t.Errorf("New(%q) = %s, private %v; want %s, %v", tt.in, c, c.Private(), tt.want, tt.private)
		}
	}
}

func compress(t *testing.T, method string, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	var w io.WriteCloser
	var err error
	switch method {
	case "none":
		return b
	case "xz":
		w, err = xz.WriterConfig{BlockSize: 50_000}.NewWriter(&out) // several blocks, as xz -T makes
	case "zstd":
		w, err = zstd.NewWriter(&out)
	case "br":
		w = brotli.NewWriter(&out)
	case "gzip":
		w = gzip.NewWriter(&out)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestOpenNAR(t *testing.T) {
	_, nar, genuineInfo := genuine(t)
	for _, method := range []string{"none", "xz", "zstd", "br", "gzip"} {
		for _, ranges := range []bool{true, false} {
			for _, offset := range []int64{0, 1, int64(len(nar)) - 1} {
				t.Run(fmt.Sprintf("%s, ranges %v, from %d", method, ranges, offset), func(t *testing.T) {
					file := compress(t, method, nar)
					c := client(t, upstream.Config{URL: "/sub/"}, func(w http.ResponseWriter, r *http.Request) {
						if r.URL.Path != "/sub/nar/x.nar" {
							t.Errorf("asked for %s", r.URL)
						}
						if !ranges {
							r.Header.Del("Range")
						}
						http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(file))
					})
					info := *genuineInfo
					info.URL, info.Compression = "nar/x.nar", method
					got := read(t, c, &info, offset)
					if !bytes.Equal(got, nar[offset:]) {
						t.Errorf("got %d bytes, which are not the NAR's last %d", len(got), len(nar)-int(offset))
					}
				})
			}
		}
	}
}

func read(t *testing.T, c *upstream.Client, info *narinfo.Info, offset int64) []byte {
	t.Helper()
	body, err := c.OpenNAR(t.Context(), info, offset)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	b, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestBzip2(t *testing.T) {
	file, err := os.ReadFile("testdata/hello.bz2")
	if err != nil {
		t.Fatal(err)
	}
	_, _, info := genuine(t)
	info.Compression, info.NARSize = "bzip2", 11_000
	c := client(t, upstream.Config{}, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(file) })
	if got := read(t, c, info, 10_989); string(got) != "hello, NAR\n" {
		t.Errorf("the end is %q", got)
	}
}

// What a cache sends beyond the signed size is never decoded, nor kept.
func TestBombs(t *testing.T) {
	_, _, info := genuine(t)
	info.NARSize = 1000
	zeros := make([]byte, 1<<20)
	for _, method := range []string{"none", "xz", "zstd", "br", "gzip"} {
		file := compress(t, method, zeros)
		info.Compression = method
		c := client(t, upstream.Config{}, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(file) })
		if got := read(t, c, info, 0); len(got) != 1000 {
			t.Errorf("%s: %d bytes, want 1000", method, len(got))
		}
	}
}

// Empty zstd frames decode to nothing for ever.
func TestEndlessNothing(t *testing.T) {
	_, _, info := genuine(t)
	info.Compression = "zstd"
	skippable := append([]byte{0x50, 0x2a, 0x4d, 0x18, 0xf8, 0xff, 0, 0}, make([]byte, 0xfff8)...)
	c := client(t, upstream.Config{}, func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write(skippable); err != nil {
				return
			}
		}
	})
	body, err := c.OpenNAR(t.Context(), info, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if n, err := io.Copy(io.Discard, body); n != 0 || err == nil && n == info.NARSize {
		t.Errorf("read %d bytes, %v", n, err)
	}
}

func TestBadNARs(t *testing.T) {
	_, nar, genuineInfo := genuine(t)
	for _, tt := range []struct {
		name, compression, url string
		offset                 int64
		handler                http.HandlerFunc
	}{
		{"unknown compression", "lzip", "nar/x", 0, nil},
		{"out of the cache", "none", "../secret", 0, nil},
		{"out of the cache, escaped", "none", "nar/%2e%2e/%2e%2e/secret", 0, nil},
		{"a local file", "none", "file:///etc/passwd", 0, nil},
		{"a password for another host", "none", "https://me:pw@example.org/x", 0, nil},
		{"the wrong range", "none", "nar/x", 10, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes 9-%d/%d", len(nar)-1, len(nar)))
			w.WriteHeader(http.StatusPartialContent)
		}},
		{"another size", "none", "nar/x", 10, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes 10-%d/%d", len(nar), len(nar)+1))
			w.WriteHeader(http.StatusPartialContent)
		}},
		{"too short to resume", "xz", "nar/x", 1000, func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(compress(t, "xz", nar[:999]))
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := client(t, upstream.Config{}, func(w http.ResponseWriter, r *http.Request) {
				if tt.handler == nil {
					t.Errorf("asked for %s", r.URL)
					return
				}
				tt.handler(w, r)
			})
			info := *genuineInfo
			info.URL, info.Compression = tt.url, tt.compression
			if body, err := c.OpenNAR(t.Context(), &info, tt.offset); err == nil {
				body.Close()
				t.Error("opened")
			}
		})
	}
}

// A relative URL is joined as Nix does, and its query stays.
func TestRelativeURL(t *testing.T) {
	_, nar, info := genuine(t)
	info.Compression = "none"
	for in, want := range map[string]string{
		"nar/a.nar?hash=b":  "/sub/nar/a.nar?hash=b",
		"/nar/a.nar":        "/sub/nar/a.nar",
		"//evil.org/a.nar":  "/sub/evil.org/a.nar",
		"nar/a%2fb:c.nar":   "/sub/nar/a%2fb:c.nar",
		"a:b":               "/sub/a:b",
		"nar/a.nar#nothing": "/sub/nar/a.nar",
	} {
		c := client(t, upstream.Config{URL: "/sub"}, func(w http.ResponseWriter, r *http.Request) {
			if got := r.URL.RequestURI(); got != want {
				t.Errorf("for %q asked for %q, want %q", in, got, want)
			}
			_, _ = w.Write(nar)
		})
		info.URL = in
		read(t, c, info, 0)
	}
}

func TestFileIsBounded(t *testing.T) {
	c := client(t, upstream.Config{}, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/log/x.drv" {
			t.Errorf("asked for %s", r.URL)
		}
		_, _ = w.Write(bytes.Repeat([]byte("a"), 1000))
	})
	for limit, ok := range map[int64]bool{1000: true, 999: false} {
		body, err := c.File(t.Context(), "log/x.drv", limit)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, body); n != limit || (err == nil) != ok {
			t.Errorf("limit %d: read %d, %v", limit, n, err)
		}
		body.Close()
	}
}
