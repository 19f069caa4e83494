package lab

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"strings"
)

// Version is an installed version of Nix.
type Version struct {
	// Name is such as "2.34.8".
	Name string
	// Bin is the folder of its programs.
	Bin string
}

// Versions returns the versions of Nix to test with, the oldest first. What is
// not there yet it installs.
func (l *Lab) Versions() []Version {
	l.t.Helper()
	var said bytes.Buffer
	cmd := exec.CommandContext(l.t.Context(), filepath.Join(moduleRoot(), ".ci", "nix-versions"))
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		l.t.Fatalf("lab: install the versions of Nix: %v\n%s", err, said.String())
	}
	var versions []Version
	for bin := range strings.FieldsSeq(string(out)) {
		out, err := exec.CommandContext(l.t.Context(), filepath.Join(bin, "nix-store"), "--version").Output()
		fields := strings.Fields(string(out))
		if err != nil || len(fields) == 0 {
			l.t.Fatalf("lab: version of %s: %v: %q", bin, err, out)
		}
		versions = append(versions, Version{Name: fields[len(fields)-1], Bin: bin})
	}
	return versions
}
