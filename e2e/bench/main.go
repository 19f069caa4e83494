// Command bench measures what nar-p2p promises about speed, each number beside
// its baseline in the same run. docs/performance.md explains the lines.
//
// The environment variable ONLY names the lines to run, or what several of their
// names begin with, separated by commas, OUT a file for the results as JSON, and
// RUNS how often each is measured; 3 is the default and the least. SCALE is what
// the sizes of all NARs are multiplied with, for a quick look: what a small one
// takes says little about a large one.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/nar-p2p/nar-p2p/e2e/lab"
)

// minRuns is the least number of which a median says something.
const minRuns = 3

// memory is a file system without a disk, whose speed varies.
const memory = "/dev/shm"

func main() {
	if os.Getenv("TMPDIR") == "" {
		if _, err := os.Stat(memory); err == nil {
			os.Setenv("TMPDIR", memory)
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
}

// measurements returns all of them, in the order of the table. Each kind is in
// a file of its own.
func measurements(s scale) []measurement {
	return slices.Concat(
		narinfos(), closureWalks(),
		loopbacks(s), fourPeers(s), onePeer(s), lossy(s), upstreamOnly(s), lanPeers(s), memories(s), firstBytes(s),
		upgrades(s),
	)
}

// scale multiplies sizes.
type scale float64

// mib returns so many MiB in bytes.
func (s scale) mib(n int64) int64 { return int64(float64(n<<20) * float64(s)) }

func scaleWanted() (scale, error) {
	text := os.Getenv("SCALE")
	if text == "" {
		return 1, nil
	}
	s, err := strconv.ParseFloat(text, 64)
	if err != nil || !(s > 0 && s <= 1) {
		return 0, fmt.Errorf("SCALE=%s: want a number above 0, at most 1", text)
	}
	return scale(s), nil
}

func run(ctx context.Context, w io.Writer) error {
	runs, err := runsWanted()
	if err != nil {
		return err
	}
	scale, err := scaleWanted()
	if err != nil {
		return err
	}
	wanted, err := wanted(measurements(scale), os.Getenv("ONLY"))
	if err != nil {
		return err
	}
	results := []result{}
	var errs []error
	for _, m := range wanted {
		fmt.Fprintf(os.Stderr, "bench: measuring %s\n", strings.Join(m.names(), ", "))
		measured, err := m.run(ctx, runs)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", m.lines[0].name, err))
		}
		results = append(results, measured...)
	}
	_, err = io.WriteString(w, table(results))
	errs = append(errs, err)
	if out := os.Getenv("OUT"); out != "" {
		data, err := json.MarshalIndent(results, "", "  ")
		if err == nil {
			err = os.WriteFile(out, append(data, '\n'), 0o644)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func runsWanted() (int, error) {
	text := os.Getenv("RUNS")
	if text == "" {
		return minRuns, nil
	}
	runs, err := strconv.Atoi(text)
	if err != nil || runs < minRuns {
		return 0, fmt.Errorf("RUNS=%s: want a number, at least %d", text, minRuns)
	}
	return runs, nil
}

// wanted returns all measurements, or those of the lines that were asked for,
// whose names are separated by commas. What is no line's name stands for all
// lines whose names begin with it and a hyphen.
func wanted(all []measurement, only string) ([]measurement, error) {
	if only == "" {
		return all, nil
	}
	var names []string
	for _, m := range all {
		names = append(names, m.names()...)
	}
	var asked, missing []string
	for name := range strings.SplitSeq(only, ",") {
		family := slices.DeleteFunc(slices.Clone(names), func(other string) bool { return !strings.HasPrefix(other, name+"-") })
		switch {
		case slices.Contains(names, name):
			asked = append(asked, name)
		case len(family) > 0:
			asked = append(asked, family...)
		default:
			missing = append(missing, name)
		}
	}
	var some []measurement
	for _, m := range all {
		var lines []int
		for i, l := range m.lines {
			if slices.Contains(asked, l.name) {
				lines = append(lines, i)
			}
		}
		if len(lines) > 0 {
			some = append(some, m.only(lines))
		}
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("ONLY=%s: no line %s: the lines are %s", only, strings.Join(missing, ", "), strings.Join(names, ", "))
	}
	return some, nil
}

func (m measurement) names() (names []string) {
	for _, l := range m.lines {
		names = append(names, l.name)
	}
	return names
}

// only returns the measurement with some of its lines.
func (m measurement) only(lines []int) measurement {
	some := measurement{}
	for _, i := range lines {
		some.lines = append(some.lines, m.lines[i])
	}
	some.setUp = func(l *lab.Lab, _ want) (func() ([]sample, error), error) {
		once, err := m.setUp(l, func(name string) bool { return slices.Contains(some.names(), name) })
		return func() ([]sample, error) {
			all, err := once()
			if err != nil {
				return nil, err
			}
			var samples []sample
			for _, i := range lines {
				samples = append(samples, all[i])
			}
			return samples, nil
		}, err
	}
	return some
}

// run measures in a lab of its own and returns the medians.
func (m measurement) run(ctx context.Context, runs int) (results []result, err error) {
	samples := make([][]sample, len(m.lines))
	err = lab.Play(ctx, func(l *lab.Lab) error {
		once, err := m.setUp(l, func(string) bool { return true })
		if err != nil {
			return err
		}
		for range runs {
			measured, err := once()
			if err != nil {
				return err
			}
			for i, s := range measured {
				samples[i] = append(samples[i], s)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for i, l := range m.lines {
		results = append(results, l.result(samples[i]))
	}
	return results, nil
}
