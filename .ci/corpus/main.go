// Corpus adds to the seeds of fuzz targets the few inputs, of those that fuzzing has
// found on this machine, that do what no other seed does: reach a statement, or reach
// it so many times. They go where Go's tests find them, testdata/fuzz of each package.
//
//	go run ./.ci/corpus [package...]
package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/bits"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// maxSize leaves out large inputs, which are a burden on every clone: in bytes.
	maxSize = 8 << 10
	// maxSeeds is how many files a target has at most.
	maxSeeds = 48
	// patience bounds each program that is run.
	patience = 5 * time.Minute
)

func main() {
	packages := os.Args[1:]
	if len(packages) == 0 {
		packages = []string{"./..."}
	}
	if err := run(packages); err != nil {
		fmt.Fprintln(os.Stderr, "corpus:", err)
		os.Exit(1)
	}
}

func run(packages []string) error {
	cache, err := output("", "go", "env", "GOCACHE")
	if err != nil {
		return err
	}
	list, err := output("", "go", append([]string{"list", "-f", `{{.ImportPath}} {{.Dir}} {{join .Imports " "}}`}, packages...)...)
	if err != nil {
		return err
	}
	for line := range strings.Lines(list) {
		fields := strings.Fields(line)
		name, dir := fields[0], fields[1]
		targets, err := fuzzTargets(dir)
		if err != nil {
			return err
		}
		if len(targets) == 0 {
			continue
		}
		p := &tested{dir: dir, found: filepath.Join(strings.TrimSpace(cache), "fuzz", name), covered: []string{"./..."}, report: os.Stdout}
		for _, imported := range fields[2:] {
			if domain, _, _ := strings.Cut(imported, "/"); strings.Contains(domain, ".") {
				p.covered = append(p.covered, imported)
			}
		}
		if err := p.addAll(targets); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

var target = regexp.MustCompile(`(?m)^func (Fuzz\w+)\(`)

func fuzzTargets(dir string) (names []string, err error) {
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		for _, m := range target.FindAllSubmatch(text, -1) {
			names = append(names, string(m[1]))
		}
	}
	return names, nil
}

// tested is a package with fuzz targets.
type tested struct {
	dir     string
	found   string   // where Go keeps what fuzzing has found
	covered []string // the packages whose statements are to be reached
	work    string   // a copy of the package's test data, beside the test program
	report  io.Writer
}

func (p *tested) addAll(targets []string) error {
	work, err := os.MkdirTemp("", "corpus")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	p.work = work
	if _, err := output(p.dir, "go", "test", "-c", "-cover", "-coverpkg="+strings.Join(p.covered, ","), "-covermode=count", "-o", p.program(), "."); err != nil {
		return err
	}
	if data := filepath.Join(p.dir, "testdata"); exists(data) {
		if err := os.CopyFS(filepath.Join(work, "testdata"), os.DirFS(data)); err != nil {
			return err
		}
	}
	for _, name := range targets {
		if err := p.add(name); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func (p *tested) program() string { return filepath.Join(p.work, "tests") }

// input is one of a target's, and what it does.
type input struct {
	name string
	data []byte
	does []string
}

// add adds inputs to the seeds of a target.
func (p *tested) add(target string) error {
	kept := filepath.Join(p.dir, "testdata", "fuzz", target)
	// Those that once made a test fail may do nothing special now.
	done, err := p.do("^" + target + "$")
	if err != nil {
		return err
	}
	seeds, err := os.ReadDir(kept)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	candidates, err := inputs(filepath.Join(p.found, target))
	if err != nil {
		return err
	}
	dir := filepath.Join(p.work, "testdata", "fuzz", target)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, in := range candidates {
		if err := p.try(target, in, filepath.Join(dir, in.name)); err != nil {
			return err
		}
	}
	chosen := choose(candidates, done, maxSeeds-len(seeds))
	if len(chosen) > 0 {
		if err := os.MkdirAll(kept, 0o755); err != nil {
			return err
		}
	}
	for _, in := range chosen {
		if err := os.WriteFile(filepath.Join(kept, in.name), in.data, 0o644); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(p.report, "%s: %d seeds, and %d of %d inputs\n", target, len(seeds), len(chosen), len(candidates))
	return err
}

// try finds out what an input does, which is nothing where the target does not take
// it: it may be of a time when that had other arguments.
func (p *tested) try(target string, in *input, file string) error {
	if err := os.WriteFile(file, in.data, 0o644); err != nil {
		return err
	}
	does, err := p.do("^" + target + "$/^" + in.name + "$")
	if err != nil {
		if _, err := fmt.Fprintf(p.report, "%s: %s is passed over: %v\n", target, in.name, err); err != nil {
			return err
		}
	}
	in.does = does
	return os.Remove(file)
}

// inputs are those in a folder, the smallest first.
func inputs(dir string) (all []*input, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		if len(data) <= maxSize {
			all = append(all, &input{name: e.Name(), data: data})
		}
	}
	slices.SortFunc(all, func(a, b *input) int {
		return cmp.Or(cmp.Compare(len(a.data), len(b.data)), strings.Compare(a.name, b.name))
	})
	return all, nil
}

// choose takes up to limit inputs: again and again the one that does most of what
// none before it does.
func choose(candidates []*input, done []string, limit int) (chosen []*input) {
	seen := make(map[string]bool)
	for _, what := range done {
		seen[what] = true
	}
	for len(chosen) < limit {
		var best *input
		most := 0
		for _, in := range candidates {
			more := 0
			for _, what := range in.does {
				if !seen[what] {
					more++
				}
			}
			if more > most {
				best, most = in, more
			}
		}
		if best == nil {
			break
		}
		chosen = append(chosen, best)
		for _, what := range best.does {
			seen[what] = true
		}
	}
	return chosen
}

// do runs tests, and returns each block of code that they reach with about how often.
func (p *tested) do(run string) (what []string, err error) {
	profile := filepath.Join(p.work, "profile")
	if _, err := output(p.work, p.program(), "-test.run", run, "-test.coverprofile", profile); err != nil {
		return nil, err
	}
	text, err := os.ReadFile(profile)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(text)) {
		// file:from,to statements count, after a first line with the mode
		block, count, _ := strings.Cut(line, " ")
		_, count, _ = strings.Cut(strings.TrimSpace(count), " ")
		if n, err := strconv.Atoi(count); err == nil && n > 0 {
			what = append(what, fmt.Sprint(block, " ", bits.Len(uint(n))))
		}
	}
	return what, nil
}

func output(dir, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s%s", name, err, out, stderr.Bytes())
	}
	return string(out), nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
