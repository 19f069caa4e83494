package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/nar-p2p/nar-p2p/internal/config"
)

// FuzzFile reads bytes as a configuration file. What is accepted comes out the
// same each time, and keeps the password of an upstream to itself.
func FuzzFile(f *testing.F) {
	for _, text := range []string{
		"", "profile = \"lan\"\n", "[p2p]\nlisten = [\"/ip4/127.0.0.1/tcp/0\"]\nupload_limit = \"10MiB/s\"\n",
		"[[upstream]]\nurl = \"https://u:secretpassword@cache.example.org\"\npriority = 1\n",
		"[fetch]\nmemory = \"1GiB\"\n[trust]\nthreshold = 2\n", "profile = 1979-05-27\n", "upstream = 1\n", "[a.b]\nc = {}\n",
		"network = \"team\"\nprofile = \"private\"\n[share]\nexclude = [\"*-secret\", \"[\"]\n", "state_dir = \"\"\"\n/x\"\"\"\n",
	} {
		f.Add([]byte(text))
	}
	path := filepath.Join(f.TempDir(), "config.toml")
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		read := func() (*config.Config, error) {
			flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
			config.AddFlags(flags)
			if err := flags.Parse([]string{"--config", path}); err != nil {
				t.Fatal(err)
			}
			return config.Load(flags, []string{"HOME=/home/u", "XDG_RUNTIME_DIR=/run/user/1"})
		}
		c, err := read()
		if err != nil {
			if !strings.HasPrefix(err.Error(), "config: ") {
				t.Errorf("error %q does not say that it is about the configuration", err)
			}
			return
		}
		again, err := read()
		if err != nil {
			t.Fatalf("the same file is refused when it is read again: %v", err)
		}
		if changed := config.Changes(c, again); len(changed) > 0 {
			t.Errorf("read twice, %q differ", changed)
		}
		for _, setting := range c.Effective() {
			if shown := strings.Join(setting.Values, " "); strings.Contains(shown, "secretpassword") {
				t.Errorf("%s shows a password: %s", setting.Key, shown)
			}
		}
	})
}
