package main

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/nar-p2p/nar-p2p/e2e/lab"
)

// measurement is what is measured at once, for one line of the table or more.
type measurement struct {
	lines []line
	// setUp prepares a lab and returns what is called for each run. That returns a
	// sample for each line; it may be empty for one that nobody wants.
	setUp func(l *lab.Lab, wanted want) (func() ([]sample, error), error)
}

// want says of a line whether it is wanted.
type want func(name string) bool

// line is one line of the table.
type line struct {
	name string
	// unit is that of the value and of the baseline.
	unit string
	goal goal
}

// sample is one measurement and, taken next to it, its baseline.
type sample struct {
	value, baseline float64
	// ceiling is what the network can carry at most, where that was measured.
	ceiling float64
}

// against is a sample without a ceiling.
func against(value, baseline float64) sample { return sample{value: value, baseline: baseline} }

func (s sample) ratio() float64 { return s.value / s.baseline }

// goal is what should be reached. The zero goal is none: such a line is there to
// compare with.
type goal struct {
	what    string // "value" or "ratio"
	target  float64
	atLeast bool // else at most
	// slack is what the value may have on top of the ratio.
	slack float64
}

// of returns the number that counts.
func (g goal) of(s sample) float64 {
	if g.what == "value" {
		return s.value
	}
	return (s.value - g.slack) / s.baseline
}

func (g goal) met(s sample) bool {
	if g.atLeast {
		return g.of(s) >= g.target
	}
	return g.of(s) <= g.target
}

func (g goal) String() string {
	if g.slack > 0 {
		return fmt.Sprintf("value ≤ %g × baseline + %g", g.target, g.slack)
	}
	if g.atLeast {
		return fmt.Sprintf("%s ≥ %g", g.what, g.target)
	}
	return fmt.Sprintf("%s ≤ %g", g.what, g.target)
}

// result is a line's median, as it is written to OUT.
type result struct {
	Name     string  `json:"name"`
	Value    float64 `json:"value"`
	Baseline float64 `json:"baseline"`
	Ratio    float64 `json:"ratio"`
	// Target is null, and Met true, where there is none.
	Target *float64 `json:"target"`
	Met    bool     `json:"met"`
	// Goal says what Target is a bound of.
	Goal string `json:"goal,omitempty"`
	Unit string `json:"unit"`
	// Ceiling is what the network can carry at most, in the same unit.
	Ceiling float64 `json:"ceiling,omitempty"`
	Runs    int     `json:"runs"`
}

// result returns the sample whose number that counts is the median, as a whole:
// a value and a baseline of different runs would not belong together.
func (l line) result(samples []sample) result {
	samples = slices.SortedFunc(slices.Values(samples), func(a, b sample) int {
		return cmp.Compare(l.goal.of(a), l.goal.of(b))
	})
	median := samples[len(samples)/2]
	r := result{
		Name: l.name, Value: round(median.value), Baseline: round(median.baseline), Ratio: round(median.ratio()),
		Met: true, Unit: l.unit, Ceiling: round(median.ceiling), Runs: len(samples),
	}
	if l.goal.what != "" {
		r.Target, r.Goal, r.Met = &l.goal.target, l.goal.String(), l.goal.met(median)
	}
	return r
}

// round keeps three digits: no measurement here is better than that.
func round(x float64) float64 {
	if x == 0 || math.IsInf(x, 0) || math.IsNaN(x) {
		return x
	}
	scale := math.Pow(10, 2-math.Floor(math.Log10(math.Abs(x))))
	return math.Round(x*scale) / scale
}

// table returns the results for people.
func table(results []result) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "line\tvalue\tbaseline\tceiling\tunit\tratio\ttarget\tmet")
	for _, r := range results {
		met, ceiling := "-", "-"
		if r.Target != nil {
			met = map[bool]string{true: "yes", false: "NO"}[r.Met]
		}
		if r.Ceiling > 0 {
			ceiling = plain(r.Ceiling)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.Name, plain(r.Value), plain(r.Baseline), ceiling, r.Unit, plain(r.Ratio), r.Goal, met)
	}
	if err := w.Flush(); err != nil {
		panic("bench: " + err.Error()) // A strings.Builder takes everything.
	}
	return b.String()
}

// plain writes a number without an exponent.
func plain(x float64) string {
	return strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%.4f", x), "0"), ".")
}
