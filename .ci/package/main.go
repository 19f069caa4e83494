// Command package makes what is released, into a folder: static programs for Linux
// and macOS on amd64 and arm64, archives of them with their man pages and units,
// packages for Debian, an OCI image layout, an SBOM, the licences of all that went
// in, release notes, and checksums. The same commit makes the same bytes on every machine that has
// the same Go; but for the OCI image, which has the CA certificates of the machine.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// release is what is being made.
type release struct {
	// source is the module's folder, out where everything goes.
	source, out string
	version     string
	// maintainer is whom Debian's package names, as "Name <address>".
	maintainer string
	// date is that of the commit. No file has another.
	date    time.Time
	targets []target
	// stages are the installed trees, one for each target.
	stages map[target]string
}

// target is what programs are made for.
type target struct{ os, arch string }

func (t target) String() string { return t.os + "_" + t.arch }

var allTargets = []target{{"linux", "amd64"}, {"linux", "arm64"}, {"darwin", "amd64"}, {"darwin", "arm64"}}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "package:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("package", flag.ContinueOnError)
	source := flags.String("source", ".", "the module's folder")
	out := flags.String("out", "dist", "where to put everything; what is there is removed")
	version := flags.String("version", "", "the version, such as 1.2.3")
	date := flags.Int64("date", 0, "the commit's date, in seconds since 1970")
	maintainer := flags.String("maintainer", "nar-p2p <nar-p2p@users.noreply.github.com>", "whom the package for Debian names")
	native := flags.Bool("native", false, "only for this machine")
	if err := flags.Parse(args); err != nil {
		return err
	}
	r := &release{
		version: *version, maintainer: *maintainer, date: time.Unix(*date, 0).UTC(),
		targets: allTargets, stages: map[target]string{},
	}
	var err error
	if r.source, err = filepath.Abs(*source); err != nil {
		return err
	}
	if r.out, err = filepath.Abs(*out); err != nil {
		return err
	}
	if r.version == "" || strings.Trim(r.version, "0123456789abcdefghijklmnopqrstuvwxyz.-+~") != "" {
		return fmt.Errorf("version %q is none", r.version)
	}
	if *native {
		r.targets = []target{{runtime.GOOS, runtime.GOARCH}}
	}
	if err := os.RemoveAll(r.out); err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{r.build, r.archive, r.debian, r.image, r.describe, r.notes, r.sum} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return os.RemoveAll(filepath.Join(r.out, "stage"))
}

// build makes the programs, and installs them with what belongs to them.
func (r *release) build(ctx context.Context) error {
	// This machine's own writes the man pages for all.
	own := filepath.Join(r.out, "stage", "p2pctl")
	if err := r.goBuild(ctx, target{runtime.GOOS, runtime.GOARCH}, own, "./cmd/p2pctl"); err != nil {
		return err
	}
	for _, t := range r.targets {
		bin := filepath.Join(r.out, "stage", t.String(), "bin")
		if err := os.MkdirAll(bin, 0o755); err != nil {
			return err
		}
		if err := r.goBuild(ctx, t, bin+"/", "./cmd/nar-p2pd", "./cmd/p2pctl"); err != nil {
			return err
		}
		root := filepath.Join(r.out, "stage", t.String(), "root")
		prefix := "/usr"
		if t.os == "darwin" {
			prefix = "/usr/local"
		}
		install := exec.CommandContext(ctx, filepath.Join(r.source, ".ci", "install"))
		install.Env = append(os.Environ(), "OS="+t.os, "BIN="+bin, "P2PCTL="+own, "PREFIX="+prefix, "DESTDIR="+root)
		if said, err := install.CombinedOutput(); err != nil {
			return fmt.Errorf("install for %s: %w\n%s", t, err, said)
		}
		r.stages[t] = root
	}
	return nil
}

func (r *release) goBuild(ctx context.Context, t target, out string, packages ...string) error {
	args := []string{
		"build", "-trimpath", "-buildvcs=false", "-o", out,
		"-ldflags", "-s -w -buildid= -X github.com/nar-p2p/nar-p2p/internal/version.override=" + r.version,
	}
	build := exec.CommandContext(ctx, "go", append(args, packages...)...)
	build.Dir = r.source
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+t.os, "GOARCH="+t.arch, "GOAMD64=v1", "GOARM64=v8.0")
	if said, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build for %s: %w\n%s", t, err, said)
	}
	return nil
}

// sum writes the checksums of all files that are released.
func (r *release) sum(context.Context) error {
	var lines []string
	err := filepath.WalkDir(r.out, func(path string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if entry.Name() == "stage" {
				return filepath.SkipDir
			}
			return nil
		}
		file, err := os.Open(path)
		if err != nil {
			return err
		}
		defer file.Close()
		hash := sha256.New()
		if _, err := io.Copy(hash, file); err != nil {
			return err
		}
		name, err := filepath.Rel(r.out, path)
		lines = append(lines, hex.EncodeToString(hash.Sum(nil))+"  "+name+"\n")
		return err
	})
	if err != nil {
		return err
	}
	slices.SortFunc(lines, func(a, b string) int { return strings.Compare(a[64:], b[64:]) })
	return os.WriteFile(filepath.Join(r.out, "SHA256SUMS"), []byte(strings.Join(lines, "")), 0o644)
}
