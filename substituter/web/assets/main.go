// Command assets fetches again what package web embeds of others: the files of an
// npm package at one version, as a manifest such as uplot.json has them. It writes
// nothing that is not what the manifest says.
package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// maxFile is more than any file has, in bytes.
const maxFile = 8 << 20

// manifest names files of an npm package, by their names here.
type manifest struct {
	Package   string `json:"package"`
	Version   string `json:"version"`
	Integrity string `json:"integrity"` // as in a package-lock.json
	Files     map[string]struct {
		From   string `json:"from"`
		SHA256 string `json:"sha256"`
	} `json:"files"`
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: assets MANIFEST FOLDER")
		os.Exit(2)
	}
	if err := run(context.Background(), os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "assets:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, name, folder string) error {
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	var m manifest
	if err := json.Unmarshal(text, &m); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	archive, err := pack(ctx, m.Package+"@"+m.Version)
	if err != nil {
		return err
	}
	digest := sha512.Sum512(archive)
	if got := "sha512-" + base64.StdEncoding.EncodeToString(digest[:]); got != m.Integrity {
		return fmt.Errorf("%s@%s has integrity %s, want %s", m.Package, m.Version, got, m.Integrity)
	}
	files, err := unpack(archive)
	if err != nil {
		return err
	}
	for name, file := range m.Files {
		data, ok := files["package/"+file.From]
		if !ok {
			return fmt.Errorf("%s is not in the package", file.From)
		}
		digest := sha256.Sum256(data)
		if got := hex.EncodeToString(digest[:]); got != file.SHA256 {
			return fmt.Errorf("%s has sha256 %s, want %s", file.From, got, file.SHA256)
		}
		if err := os.WriteFile(filepath.Join(folder, filepath.Base(name)), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// pack has npm fetch a package.
func pack(ctx context.Context, spec string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "nar-p2p-assets-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	cmd := exec.CommandContext(ctx, "npm", "pack", "--silent", spec)
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("npm pack %s: %w", spec, err)
	}
	return os.ReadFile(filepath.Join(dir, filepath.Base(strings.TrimSpace(string(out)))))
}

func unpack(archive []byte) (map[string][]byte, error) {
	unzipped, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		return nil, err
	}
	files := make(map[string][]byte)
	for entries := tar.NewReader(unzipped); ; {
		header, err := entries.Next()
		switch {
		case errors.Is(err, io.EOF):
			return files, nil
		case err != nil:
			return nil, err
		case header.Size > maxFile:
			return nil, fmt.Errorf("%s has %d bytes", header.Name, header.Size)
		}
		if files[header.Name], err = io.ReadAll(entries); err != nil {
			return nil, err
		}
	}
}
