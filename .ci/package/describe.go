package main

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/CycloneDX/cyclonedx-go"
	"github.com/google/licensecheck"
)

// describe tells of every module that is in any of the programs: as an SBOM in
// CycloneDX, and with the text of its licence.
func (r *release) describe(ctx context.Context) error {
	modules, err := r.modules()
	if err != nil {
		return err
	}
	var components []cyclonedx.Component
	var texts bytes.Buffer
	for _, m := range modules {
		names, text, err := r.licences(ctx, m)
		if err != nil {
			return fmt.Errorf("licence of %s: %w", m.Path, err)
		}
		licences := cyclonedx.Licenses{}
		for _, name := range names {
			licences = append(licences, cyclonedx.LicenseChoice{License: &cyclonedx.License{ID: name}})
		}
		if len(names) == 0 {
			names = []string{"in words of its own"}
			licences = append(licences, cyclonedx.LicenseChoice{License: &cyclonedx.License{Name: names[0]}})
		}
		fmt.Fprintf(&texts, "%s\n%s %s: %s\n%s\n\n%s\n", strings.Repeat("=", 78), m.Path, m.Version, strings.Join(names, ", "), strings.Repeat("=", 78), text)
		purl := "pkg:golang/" + m.Path + "@" + m.Version
		components = append(components, cyclonedx.Component{
			BOMRef: purl, Type: cyclonedx.ComponentTypeLibrary, Name: m.Path, Version: m.Version, PackageURL: purl, Licenses: &licences,
		})
	}
	if err := os.WriteFile(filepath.Join(r.out, "LICENSES.txt"), texts.Bytes(), 0o644); err != nil {
		return err
	}
	bom := cyclonedx.NewBOM()
	bom.Metadata = &cyclonedx.Metadata{
		Timestamp: r.date.Format("2006-01-02T15:04:05Z"),
		Component: &cyclonedx.Component{Type: cyclonedx.ComponentTypeApplication, Name: "nar-p2p", Version: r.version, BOMRef: "nar-p2p"},
	}
	bom.Components = &components
	file, err := os.Create(filepath.Join(r.out, "sbom.cdx.json"))
	if err != nil {
		return err
	}
	return errors.Join(cyclonedx.NewBOMEncoder(file, cyclonedx.BOMFileFormatJSON).SetPretty(true).Encode(bom), file.Close())
}

// standardLibrary is what stands for Go's own among the modules.
const standardLibrary = "std"

// modules reads from the programs themselves what is in them.
func (r *release) modules() ([]*debug.Module, error) {
	all := map[string]*debug.Module{}
	for t, root := range r.stages {
		bin := "usr/bin"
		if t.os == "darwin" {
			bin = "usr/local/bin"
		}
		for _, program := range []string{"nar-p2pd", "p2pctl"} {
			info, err := buildinfo.ReadFile(filepath.Join(root, bin, program))
			if err != nil {
				return nil, err
			}
			all[standardLibrary] = &debug.Module{Path: standardLibrary, Version: strings.TrimPrefix(info.GoVersion, "go")}
			for _, m := range info.Deps {
				all[m.Path] = m
			}
		}
	}
	var modules []*debug.Module
	for _, m := range all {
		modules = append(modules, m)
	}
	slices.SortFunc(modules, func(a, b *debug.Module) int { return strings.Compare(a.Path, b.Path) })
	return modules, nil
}

// licences returns the names and the texts of a module's licences. There is no name
// for one that is not in SPDX's words.
func (r *release) licences(ctx context.Context, m *debug.Module) (names []string, text string, err error) {
	dir, err := r.folderOf(ctx, m)
	if err != nil {
		return nil, "", err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, "", err
	}
	for _, entry := range entries {
		upper := strings.ToUpper(entry.Name())
		if entry.IsDir() || !strings.HasPrefix(upper, "LICEN") && !strings.HasPrefix(upper, "COPYING") && !strings.HasPrefix(upper, "NOTICE") && !strings.HasPrefix(upper, "UNLICENSE") {
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			return nil, "", err
		}
		for _, match := range licensecheck.Scan(data).Match {
			if !match.IsURL && !slices.Contains(names, match.ID) {
				names = append(names, match.ID)
			}
		}
		text += string(data) + "\n"
	}
	if text == "" {
		return nil, "", fmt.Errorf("not found in %s", dir)
	}
	return names, text, nil
}

// folderOf is where the source of a module is.
func (r *release) folderOf(ctx context.Context, m *debug.Module) (string, error) {
	if m.Path == standardLibrary {
		root := exec.CommandContext(ctx, "go", "env", "GOROOT")
		root.Dir = r.source
		out, err := root.Output()
		return strings.TrimSpace(string(out)), err
	}
	list := exec.CommandContext(ctx, "go", "mod", "download", "-json", m.Path+"@"+m.Version)
	list.Dir = r.source
	out, err := list.Output()
	if err != nil {
		return "", err
	}
	var at struct{ Dir string }
	err = json.Unmarshal(out, &at)
	return at.Dir, err
}
