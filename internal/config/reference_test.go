package config_test

import (
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nar-p2p/nar-p2p/internal/config"
)

//go:generate go test -run=TestReference -update .

var update = flag.Bool("update", false, "rewrite docs/configuration.md")

// TestReference holds docs/configuration.md to the table of settings.
func TestReference(t *testing.T) {
	const file = "../../docs/configuration.md"
	want := config.Reference()
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("docs/configuration.md is out of date, run go generate ./internal/config (-want +got):\n%s", diff)
	}
}

// TestManual wants every key in the man page, and no link that leads nowhere
// there.
func TestManual(t *testing.T) {
	text := config.Manual()
	for _, key := range config.Keys() {
		if !strings.Contains(text, "\n### `"+key+"`\n") && key != "upstream" {
			t.Errorf("%s is missing", key)
		}
	}
	for _, bad := range []string{"](", "<!--"} {
		if strings.Contains(text, bad) {
			t.Errorf("%q is left", bad)
		}
	}
}
