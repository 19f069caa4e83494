package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// monitoring is where the alert rules and the dashboard for Grafana are.
const monitoring = "../docs/monitoring"

func TestAlertsAndGrafanaKnowTheMetricsThatThereAre(t *testing.T) {
	exposed := scrape(t)
	alerts := readFile(t, filepath.Join(monitoring, "alerts.yml"))
	dashboard := readFile(t, filepath.Join(monitoring, "grafana.json"))
	for _, c := range []struct {
		name string
		text []byte
	}{{"alerts.yml", alerts}, {"grafana.json", dashboard}} {
		names := metricName.FindAllString(string(c.text), -1)
		if len(names) < 5 {
			t.Errorf("%s names %d metrics", c.name, len(names))
		}
		for _, name := range names {
			if !regexp.MustCompile(`(?m)^` + name + `[{ ]`).Match(exposed) {
				t.Errorf("%s: a live daemon has no metric %s", c.name, name)
			}
		}
	}

	promtool(t, nil, "check", "rules", filepath.Join(monitoring, "alerts.yml"))
	promtool(t, nil, "test", "rules", filepath.Join(monitoring, "alerts_test.yml"))
	promtool(t, nil, "check", "rules", rulesOf(t, dashboard))
	promtool(t, own(exposed), "check", "metrics")
}

// metricName finds those of the node, of libp2p, of Go and of the process.
var metricName = regexp.MustCompile(`\b(nar_p2p|libp2p|go|process)_[a-z0-9_]*[a-z0-9]\b`)

// scrape returns the metrics of a daemon that has fetched from a peer and from an
// upstream, and serves.
func scrape(t *testing.T) []byte {
	t.Helper()
	m := newTeam(t, 3, 0)
	consumer, store := m.consumer()
	if err := store.Realise(m.root()); err != nil {
		t.Fatal(err)
	}
	m.provider.Stop()
	getNarinfo(t, consumer.URL(), m.root())
	return append(get(t, consumer.URL()+"/metrics"), get(t, m.bootstrap.URL()+"/metrics")...)
}

// own returns the metrics that are the project's, with their help.
func own(exposed []byte) []byte {
	var b bytes.Buffer
	seen := map[string]bool{}
	for line := range strings.Lines(string(exposed)) {
		if strings.Contains(line, "nar_p2p_") && !seen[line] {
			seen[line] = true
			b.WriteString(line)
		}
	}
	return b.Bytes()
}

// rulesOf writes what the dashboard's panels ask for as rules, which promtool can
// check.
func rulesOf(t *testing.T, dashboard []byte) string {
	t.Helper()
	var d struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(dashboard, &d); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	fmt.Fprintln(&b, "groups:\n- name: dashboard\n  rules:")
	rules := 0
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			expr := strings.NewReplacer("$__rate_interval", "5m", "$instance", "x").Replace(target.Expr)
			fmt.Fprintf(&b, "  - record: panel_%d\n    expr: %q\n", rules, expr)
			rules++
		}
	}
	if rules < 8 {
		t.Errorf("the dashboard asks %d questions", rules)
	}
	name := filepath.Join(t.TempDir(), "rules.yml")
	if err := os.WriteFile(name, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func promtool(t *testing.T, stdin []byte, args ...string) {
	t.Helper()
	name := "../.tools/bin/promtool"
	if _, err := os.Stat(name); err != nil {
		if name, err = exec.LookPath("promtool"); err != nil {
			t.Fatal("there is no promtool: make deps installs it")
		}
	}
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Stdin = bytes.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func readFile(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
