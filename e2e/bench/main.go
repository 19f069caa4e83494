// Command bench measures what nar-p2p promises about speed, each number beside
// its baseline in the same run. docs/performance.md explains the lines.
//
// The environment variable ONLY names the one line to run, OUT a file for the
// results as JSON, and RUNS how often each is measured; 3 is the default and
// the least.
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

func main() {
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
func measurements() []measurement {
	return slices.Concat(narinfos(), closureWalks())
}

func run(ctx context.Context, w io.Writer) error {
	runs, err := runsWanted()
	if err != nil {
		return err
	}
	wanted, err := wanted(measurements(), os.Getenv("ONLY"))
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

// wanted returns all measurements, or the one line of the name that was asked
// for.
func wanted(all []measurement, only string) ([]measurement, error) {
	if only == "" {
		return all, nil
	}
	var names []string
	for _, m := range all {
		for i, l := range m.lines {
			if l.name == only {
				return []measurement{m.only(i)}, nil
			}
		}
		names = append(names, m.names()...)
	}
	return nil, fmt.Errorf("ONLY=%s: the lines are %s", only, strings.Join(names, ", "))
}

func (m measurement) names() (names []string) {
	for _, l := range m.lines {
		names = append(names, l.name)
	}
	return names
}

// only returns the measurement with one line of its lines.
func (m measurement) only(i int) measurement {
	return measurement{m.lines[i : i+1], func(l *lab.Lab) (func() ([]sample, error), error) {
		once, err := m.setUp(l)
		return func() ([]sample, error) {
			samples, err := once()
			if err != nil {
				return nil, err
			}
			return samples[i : i+1], nil
		}, err
	}}
}

// run measures in a lab of its own and returns the medians.
func (m measurement) run(ctx context.Context, runs int) (results []result, err error) {
	samples := make([][]sample, len(m.lines))
	err = lab.Play(ctx, func(l *lab.Lab) error {
		once, err := m.setUp(l)
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
