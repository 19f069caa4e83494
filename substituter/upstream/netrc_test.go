package upstream

import (
	"strings"
	"testing"
)

func TestNetrc(t *testing.T) {
	const host = "cache.example.org"
	for _, tt := range []struct {
		name, text      string
		login, password string
		fails           string // part of the error
	}{
		{"one line", "machine cache.example.org login me password secret\n", "me", "secret", ""},
		{"several lines", "machine cache.example.org\r\n\tlogin me\r\n\tpassword secret\r\n", "me", "secret", ""},
		{"no final newline", "machine cache.example.org password secret", "", "secret", ""},
		{"another case", "machine Cache.Example.ORG login me password secret", "me", "secret", ""},
		{"second entry", "machine a login x password y\nmachine cache.example.org login me password secret\nmachine b login x password y", "me", "secret", ""},
		{"first of two", "machine cache.example.org login me password secret machine cache.example.org login x password y", "me", "secret", ""},
		{"default", "machine a login x password y\ndefault login me password secret", "me", "secret", ""},
		{"default does not hide", "machine cache.example.org login me password secret\ndefault login x password y", "me", "secret", ""},
		{"account, and words that nobody knows", "machine cache.example.org login me account a port 1 password secret", "me", "secret", ""},
		{"a password that is a keyword", "machine cache.example.org login machine password default", "machine", "default", ""},
		{"comments", "# machine cache.example.org\nmachine cache.example.org # password x\nlogin me\n  # password y\npassword #secret", "me", "#secret", ""},
		{"quotes", `machine cache.example.org login "m e" password "a\"b\\c\td"`, "m e", "a\"b\\c\td", ""},
		{"macro", "macdef init\nmachine cache.example.org login x\n\nmachine cache.example.org login me password secret", "me", "secret", ""},
		{"empty", "", "", "", "no entry for cache.example.org"},
		{"no entry", "machine example.org login x password y", "", "", "no entry for cache.example.org"},
		{"macro without an end", "macdef init\nmachine cache.example.org login x", "", "", "no entry"},
		{"ends early", "machine", "", "", "line 1: the file ends"},
		{"ends early, later", "machine cache.example.org\nlogin me\npassword \n", "", "", "line 4: the file ends"},
		{"quote without an end", `machine cache.example.org password "secret`, "", "", "quoted value does not end"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			login, password, err := netrcLogin(tt.text, host)
			switch {
			case tt.fails == "" && err != nil:
				t.Fatal(err)
			case tt.fails != "" && (err == nil || !strings.Contains(err.Error(), tt.fails)):
				t.Fatalf("error %v, want %q", err, tt.fails)
			}
			if tt.fails == "" && (login != tt.login || password != tt.password) {
				t.Errorf("%q, %q; want %q, %q", login, password, tt.login, tt.password)
			}
		})
	}
}

// FuzzNetrc writes an entry behind whatever may stand before it, and reads it
// again.
func FuzzNetrc(f *testing.F) {
	f.Add("machine a login b password c", "me", "secret")
	f.Add("macdef x\ny\n\n# z", `a"b`, `c\d`)
	f.Add("default", " ", "\t\n")
	f.Add(`machine "`, "", "")
	quote := strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace
	f.Fuzz(func(t *testing.T, before, login, password string) {
		_, _, _ = netrcLogin(before, "host") // must end, and not panic
		text := "machine host login \"" + quote(login) + "\" password \"" + quote(password) + "\" " + before
		gotLogin, gotPassword, err := netrcLogin(text, "host")
		if err != nil {
			if strings.Contains(err.Error(), "no entry") {
				t.Fatal(err)
			}
			return
		}
		// What follows may belong to the entry, and overrule it.
		if !strings.Contains(before, "login") && gotLogin != login || !strings.Contains(before, "password") && gotPassword != password {
			t.Fatalf("%q, %q; want %q, %q", gotLogin, gotPassword, login, password)
		}
	})
}
