package upstream_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nar-p2p/nar-p2p/substituter/upstream"
)

// secretFile writes a file with credentials.
func secretFile(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestCredentialsStayAtHome(t *testing.T) {
	const basic, bearer = "Basic bWU6c2VjcmV0", "Bearer secret"
	for _, tt := range []struct {
		name, want string
		cfg        upstream.Config
	}{
		{"in the address", basic, upstream.Config{URL: "//me:secret@x/"}},
		{"netrc", basic, upstream.Config{Netrc: secretFile(t, "machine 127.0.0.1 login me password secret")}},
		{"token", bearer, upstream.Config{TokenFile: secretFile(t, "secret\n")}},
		{"none", "", upstream.Config{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text, nar, info := genuine(t)
			check := func(r *http.Request, want string) {
				if got := r.Header.Get("Authorization"); got != want {
					t.Errorf("%s%s got %q, want %q", r.Host, r.URL, got, want)
				}
			}
			foreign := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				check(r, "")
				_, _ = w.Write(nar)
			}))
			defer foreign.Close()
			c := client(t, tt.cfg, func(w http.ResponseWriter, r *http.Request) {
				check(r, tt.want)
				switch {
				case strings.HasSuffix(r.URL.Path, ".narinfo"):
					_, _ = w.Write(text)
				case r.URL.Path == "/nar/moved":
					http.Redirect(w, r, "/nar/redirected", http.StatusFound)
				default:
					http.Redirect(w, r, foreign.URL+"/storage?signature=hush", http.StatusFound)
				}
			})
			if c.Private() != (tt.want != "") {
				t.Errorf("private: %v", c.Private())
			}
			if _, err := c.Narinfo(t.Context(), hashPart(t)); err != nil {
				t.Fatal(err)
			}
			info.Compression = "none"
			for _, u := range []string{"nar/redirected", "nar/moved", foreign.URL + "/absolute"} {
				info.URL = u
				if got := read(t, c, info, 0); !bytes.Equal(got, nar) {
					t.Errorf("%s: %d bytes", u, len(got))
				}
			}
			// Not even the signature in the address of a redirect is told.
			foreign.Close()
			info.URL = "nar/redirected"
			body, err := c.OpenNAR(t.Context(), info, 0)
			if err == nil {
				body.Close()
				t.Fatal("a server that is gone has answered")
			}
			for _, secret := range []string{"hush", "secret", "bWU6"} {
				if strings.Contains(err.Error(), secret) || strings.Contains(c.String(), secret) {
					t.Errorf("%s: %v", c, err)
				}
			}
		})
	}
}

// Tokens are renewed.
func TestCredentialsAreReadAgain(t *testing.T) {
	text, _, _ := genuine(t)
	file := secretFile(t, "first")
	got := ""
	c := client(t, upstream.Config{TokenFile: file}, func(w http.ResponseWriter, r *http.Request) {
		got = r.Header.Get("Authorization")
		_, _ = w.Write(text)
	})
	ask := func() error {
		_, err := c.Narinfo(t.Context(), hashPart(t))
		return err
	}
	for _, token := range []string{"first", "second"} {
		if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := ask(); err != nil || got != "Bearer "+token {
			t.Errorf("sent %q, %v; want %q", got, err, token)
		}
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := ask(); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("without the file: %v", err)
	}
}

func TestBadCredentials(t *testing.T) {
	const address = "https://cache.example.org"
	netrc := secretFile(t, "machine other.example.org login hush password hush")
	for name, cfg := range map[string]upstream.Config{
		"two of them":          {URL: "https://me:hush@cache.example.org", TokenFile: secretFile(t, "t")},
		"two others":           {URL: address, TokenFile: secretFile(t, "t"), Netrc: secretFile(t, "default login hush")},
		"no file":              {URL: address, TokenFile: filepath.Join(t.TempDir(), "none")},
		"a folder":             {URL: address, Netrc: t.TempDir()},
		"no entry":             {URL: address, Netrc: netrc},
		"an empty token":       {URL: address, TokenFile: secretFile(t, " \n")},
		"two tokens":           {URL: address, TokenFile: secretFile(t, "hush hush")},
		"a header in it":       {URL: address, TokenFile: secretFile(t, "hush\nX: y")},
		"much too large":       {URL: address, TokenFile: secretFile(t, strings.Repeat("hush", 1<<19))},
		"an unending quote":    {URL: address, Netrc: secretFile(t, `machine cache.example.org password "hush`)},
		"a pattern that is no": {URL: address, Include: []string{"[hush"}},
	} {
		c, err := upstream.New(cfg)
		switch {
		case err == nil:
			t.Errorf("%s: %s", name, c)
		case name != "a pattern that is no" && strings.Contains(err.Error(), "hush"):
			t.Errorf("%s: the error tells it: %v", name, err)
		}
	}
}
