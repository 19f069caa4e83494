package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestAResultIsTheMedianOfWhatCounts(t *testing.T) {
	// By value the median is the second, by ratio the third.
	samples := []sample{against(1, 1), against(3, 1), against(4, 2), against(5, 5), against(2, 0.5)}
	for _, tt := range []struct {
		goal           goal
		value, base    float64
		met, hasTarget bool
	}{
		{goal{what: "value", target: 3}, 3, 1, true, true},
		{goal{what: "value", target: 2.9}, 3, 1, false, true},
		{goal{what: "ratio", target: 2, atLeast: true}, 4, 2, true, true},
		{goal{what: "ratio", target: 2.1, atLeast: true}, 4, 2, false, true},
		{goal{what: "ratio", target: 1.5, slack: 1}, 4, 2, true, true},
		{goal{what: "ratio", target: 1.4, slack: 1}, 4, 2, false, true},
		{goal{}, 4, 2, true, false},
	} {
		r := line{name: "x", goal: tt.goal}.result(samples)
		if r.Value != tt.value || r.Baseline != tt.base || r.Met != tt.met || (r.Target != nil) != tt.hasTarget || r.Runs != 5 {
			t.Errorf("%v: %+v", tt.goal, r)
		}
	}
}

func TestJSON(t *testing.T) {
	r := line{"x", "ms", goal{what: "value", target: 5}}.result([]sample{against(12345, 1.0004)})
	data, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"name":"x","value":12300,"baseline":1,"ratio":12300,"target":5,"met":false,"goal":"value ≤ 5","unit":"ms","runs":1}`
	if diff := cmp.Diff(want, string(data)); diff != "" {
		t.Error(diff)
	}
}

func TestTable(t *testing.T) {
	got := table([]result{
		line{"rate", "requests/s", goal{what: "ratio", target: 0.25, atLeast: true}}.result([]sample{against(40000, 120000)}),
		line{"walk", "s", goal{what: "ratio", target: 0.5}}.result([]sample{{1, 1.5, 1.25}}),
		line{"more", "s", goal{what: "ratio", target: 0.5, slack: 1}}.result([]sample{against(1, 1.5)}),
		line{"other", "s", goal{}}.result([]sample{against(0.00123, 1)}),
	})
	want := strings.TrimPrefix(`
line   value   baseline  ceiling  unit        ratio   target                      met
rate   40000   120000    -        requests/s  0.333   ratio ≥ 0.25                yes
walk   1       1.5       1.25     s           0.667   ratio ≤ 0.5                 NO
more   1       1.5       -        s           0.667   value ≤ 0.5 × baseline + 1  yes
other  0.0012  1         -        s           0.0012                              -
`, "\n")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestWanted(t *testing.T) {
	names := make(map[string]bool)
	for _, m := range measurements(1) {
		for _, name := range m.names() {
			if names[name] {
				t.Errorf("two lines are called %s", name)
			}
			names[name] = true
			got, err := wanted(measurements(1), name)
			if err != nil || len(got) != 1 || !cmp.Equal(got[0].names(), []string{name}) {
				t.Errorf("wanted(%s) = %v, %v", name, got, err)
			}
		}
	}
	got, err := wanted(measurements(1), "first-byte,loopback-nix,loopback")
	if err != nil || len(got) != 2 || !cmp.Equal(got[0].names(), []string{"loopback", "loopback-nix"}) {
		t.Errorf("three lines of two measurements: %v, %v", got, err)
	}
	got, err = wanted(measurements(1), "lan,first-byte")
	if err != nil || len(got) != 3 || !cmp.Equal(got[0].names(), []string{"lan-peer"}) || !cmp.Equal(got[1].names(), []string{"lan-peer-xz"}) {
		t.Errorf("what two lines begin with: %v, %v", got, err)
	}
	if _, err := wanted(measurements(1), "loopback,no such line"); err == nil || !strings.Contains(err.Error(), "narinfo-rate") {
		t.Errorf("a line that is not there: %v, want an error that lists those that are", err)
	}
}
