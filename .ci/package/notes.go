package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// notes writes what has changed in this version, out of the changelog, and how to
// tell that the files are those that were released.
func (r *release) notes(context.Context) error {
	changelog, err := os.ReadFile(filepath.Join(r.source, "CHANGELOG.md"))
	if err != nil {
		return err
	}
	changes, err := changesIn(string(changelog), r.version)
	if err != nil {
		return fmt.Errorf("CHANGELOG.md: %w", err)
	}
	text := "# nar-p2p " + r.version + "\n\n" + changes + "\n\n## Checking\n\n" +
		"`SHA256SUMS` has the checksums of all files: `sha256sum --ignore-missing -c SHA256SUMS`.\n" +
		"`make package` at the same commit, with the same version of Go, makes the same bytes; but\n" +
		"for the OCI image, which has the CA certificates of the machine that made it.\n"
	return os.WriteFile(filepath.Join(r.out, "RELEASE-NOTES.md"), []byte(text), 0o644)
}

// changesIn returns the section of a version, which has its date behind it; or what is
// unreleased, where the version has none yet.
func changesIn(changelog, version string) (string, error) {
	sections := strings.Split("\n"+changelog, "\n## ")
	for _, want := range []string{version, "Unreleased"} {
		for _, section := range sections[1:] {
			title, text, _ := strings.Cut(section, "\n")
			if name, _, _ := strings.Cut(title, " "); name == want && strings.TrimSpace(text) != "" {
				return strings.TrimSpace(text), nil
			}
		}
	}
	return "", fmt.Errorf("has nothing about %s, and nothing unreleased", version)
}
