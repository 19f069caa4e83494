package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/CycloneDX/cyclonedx-go"
	"github.com/blakesmith/ar"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

const (
	testVersion = "0.0.1"
	// testDate is a day in 2023.
	testDate = "1700000000"
)

// TestPackage makes what is released for this machine, and looks at all of it.
// "make package-check" makes it twice, in two folders, and compares.
func TestPackage(t *testing.T) {
	out := filepath.Join(t.TempDir(), "dist")
	if err := run(t.Context(), []string{"-native", "-source", "../..", "-out", out, "-version", testVersion, "-date", testDate}); err != nil {
		t.Fatal(err)
	}
	t.Run("sums", func(t *testing.T) { checkSums(t, out) })
	t.Run("archive", func(t *testing.T) { checkArchive(t, out) })
	t.Run("debian", func(t *testing.T) { checkDebian(t, out) })
	t.Run("image", func(t *testing.T) { checkImage(t, out) })
	t.Run("modules", func(t *testing.T) { checkModules(t, out) })
	t.Run("notes", func(t *testing.T) {
		notes := string(readFile(t, filepath.Join(out, "RELEASE-NOTES.md")))
		if !strings.HasPrefix(notes, "# nar-p2p "+testVersion+"\n") || !strings.Contains(notes, "\n- ") {
			t.Errorf("no release notes:\n%s", notes)
		}
	})
}

// checkSums wants every file to have a checksum, and the right one.
func checkSums(t *testing.T, out string) {
	t.Helper()
	summed := map[string]bool{"SHA256SUMS": true}
	for line := range strings.Lines(string(readFile(t, filepath.Join(out, "SHA256SUMS")))) {
		sum, name, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "  ")
		got := sha256.Sum256(readFile(t, filepath.Join(out, name)))
		if hex.EncodeToString(got[:]) != sum {
			t.Errorf("%s: has %x, not %s", name, got, sum)
		}
		summed[name] = true
	}
	err := filepath.WalkDir(out, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && !summed[strings.TrimPrefix(path, out+"/")] {
			t.Errorf("%s has no checksum", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// checkArchive wants static programs of the version, owned by nobody in particular.
func checkArchive(t *testing.T, out string) {
	t.Helper()
	name := "nar-p2p-" + testVersion + "-" + runtime.GOOS + "-" + runtime.GOARCH
	files := untar(t, bytes.NewReader(readFile(t, filepath.Join(out, name+".tar.gz"))))
	for _, want := range []string{
		"bin/nar-p2pd", "bin/p2pctl", "share/man/man8/nar-p2pd.8", "share/man/man1/p2pctl.1",
		"share/bash-completion/completions/p2pctl", "lib/systemd/system/nar-p2pd.service", "lib/systemd/user/nar-p2pd.socket",
		"share/doc/nar-p2p/LICENSE",
	} {
		if files[name+"/"+want] == nil {
			t.Errorf("%s is missing", want)
		}
	}
	program := filepath.Join(t.TempDir(), "p2pctl")
	data := files[name+"/bin/p2pctl"]
	if err := os.WriteFile(program, data, 0o755); err != nil {
		t.Fatal(err)
	}
	said, err := exec.CommandContext(t.Context(), program, "--version").Output()
	if err != nil || string(said) != "p2pctl "+testVersion+"\n" {
		t.Errorf("p2pctl --version says %q, %v", said, err)
	}
	static(t, data)
	if unit := string(files[name+"/lib/systemd/system/nar-p2pd.service"]); !strings.Contains(unit, "ExecStart=/usr/bin/nar-p2pd\n") {
		t.Errorf("the unit does not start the program:\n%s", unit)
	}
}

// static wants a program that needs no loader.
func static(t *testing.T, data []byte) {
	t.Helper()
	program, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range program.Progs {
		if p.Type == elf.PT_INTERP {
			t.Error("the program is linked dynamically")
		}
	}
}

// checkDebian wants a package that says what it is, with its scripts, whose settings
// dpkg keeps.
func checkDebian(t *testing.T, out string) {
	t.Helper()
	members := map[string][]byte{}
	reader := ar.NewReader(bytes.NewReader(readFile(t, filepath.Join(out, "nar-p2p_"+testVersion+"_"+runtime.GOARCH+".deb"))))
	for {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(reader)
		if err != nil {
			t.Fatal(err)
		}
		members[strings.TrimSuffix(header.Name, "/")] = data
	}
	control := untar(t, bytes.NewReader(members["control.tar.gz"]))
	fields := string(control["./control"])
	for _, want := range []string{
		"Package: nar-p2p\n", "Version: " + testVersion + "\n", "Architecture: " + runtime.GOARCH + "\n",
		"Maintainer: nar-p2p <nar-p2p@users.noreply.github.com>\n", "Depends: systemd, passwd\n", "Description: peer-to-peer binary cache for Nix\n",
	} {
		if !strings.Contains(fields, want) {
			t.Errorf("control has no %q:\n%s", want, fields)
		}
	}
	if got := string(control["./conffiles"]); got != "/etc/default/nar-p2p\n" {
		t.Errorf("conffiles are %q", got)
	}
	for _, script := range []string{"postinst", "prerm", "postrm"} {
		if !bytes.HasPrefix(control["./"+script], []byte("#!/bin/sh\nset -e\n")) {
			t.Errorf("there is no %s", script)
		}
	}
	data := untar(t, bytes.NewReader(members["data.tar.gz"]))
	for _, want := range []string{"./usr/bin/nar-p2pd", "./etc/default/nar-p2p", "./usr/lib/systemd/system/nar-p2pd.service", "./usr/lib/sysusers.d/nar-p2p.conf"} {
		if data[want] == nil {
			t.Errorf("%s is not in the package", want)
		}
	}
}

// checkImage wants a layout that fits together, with an image that runs as nobody.
func checkImage(t *testing.T, out string) {
	t.Helper()
	index, err := layout.ImageIndexFromPath(filepath.Join(out, "oci"))
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(index); err != nil {
		t.Error(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil || len(manifest.Manifests) != 1 || manifest.Manifests[0].Platform.Architecture != runtime.GOARCH {
		t.Fatalf("the index is %+v, %v", manifest, err)
	}
	image, err := index.Image(manifest.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	config, err := image.ConfigFile()
	if err != nil || config.Config.User != "65532:65532" || !slices.Equal(config.Config.Entrypoint, []string{"/usr/bin/nar-p2pd"}) {
		t.Errorf("the image's configuration is %+v, %v", config, err)
	}
	runImage(t, image, config.Config.Env)
}

// runImage wants the daemon to run where there is nothing but the image, as who it is
// to be, and p2pctl to find it. As an engine does, it needs root.
func runImage(t *testing.T, image v1.Image, env []string) {
	t.Helper()
	root := t.TempDir()
	if err := os.Chmod(filepath.Dir(root), 0o755); err != nil {
		t.Fatal(err)
	}
	unpack(t, mutate.Extract(image), root)
	program := func(name string, args ...string) *exec.Cmd {
		cmd := exec.CommandContext(t.Context(), "/usr/bin/"+name, args...)
		cmd.Env = append(env, "NAR_P2P_PROFILE=off", "NAR_P2P_SUBSTITUTER_LISTEN=127.0.0.1:0")
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root, Credential: &syscall.Credential{Uid: user, Gid: user}}
		return cmd
	}
	daemon := program("nar-p2pd")
	log := &bytes.Buffer{}
	daemon.Stderr = log
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- daemon.Wait() }()
	for {
		said, err := program("p2pctl", "status").CombinedOutput()
		if err == nil && bytes.HasPrefix(said, []byte("nar-p2pd ")) {
			break
		}
		select {
		case err := <-ended:
			t.Fatalf("the daemon ends: %v\n%s", err, log)
		case <-time.After(100 * time.Millisecond):
		}
	}
	if err := daemon.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("the daemon ends: %v\n%s", err, log)
	}
}

// unpack makes the files of an image, with their owners.
func unpack(t *testing.T, layers io.ReadCloser, root string) {
	t.Helper()
	defer layers.Close()
	for reader := tar.NewReader(layers); ; {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(root, header.Name)
		if header.Typeflag == tar.TypeDir {
			err = os.MkdirAll(name, header.FileInfo().Mode())
		} else {
			var data []byte
			if data, err = io.ReadAll(reader); err == nil {
				err = os.WriteFile(name, data, header.FileInfo().Mode())
			}
		}
		if err = errors.Join(err, os.Chown(name, header.Uid, header.Gid)); err != nil {
			t.Fatal(err)
		}
	}
}

// checkModules wants every module in the SBOM to have a licence, whose text is there.
func checkModules(t *testing.T, out string) {
	t.Helper()
	var bom cyclonedx.BOM
	if err := cyclonedx.NewBOMDecoder(bytes.NewReader(readFile(t, filepath.Join(out, "sbom.cdx.json"))), cyclonedx.BOMFileFormatJSON).Decode(&bom); err != nil {
		t.Fatal(err)
	}
	texts := string(readFile(t, filepath.Join(out, "LICENSES.txt")))
	if n := len(*bom.Components); n < 50 {
		t.Errorf("only %d modules are in the SBOM", n)
	}
	if !strings.Contains(texts, "\nstd "+strings.TrimPrefix(runtime.Version(), "go")+": BSD-3-Clause\n") {
		t.Error("the licence of Go's own library is missing")
	}
	for _, c := range *bom.Components {
		if c.Licenses == nil || len(*c.Licenses) == 0 || !strings.Contains(texts, "\n"+c.Name+" "+c.Version+": ") {
			t.Errorf("%s has no licence", c.Name)
		}
	}
}

// TestChanges wants the notes of a version to be its own.
func TestChanges(t *testing.T) {
	const changelog = "# Changelog\n\n## Unreleased\n\n- new\n\n## 0.2.0 - 2027-01-31\n\n- two\n\n### Fixed\n\n- it\n\n## 0.1.0\n\n- one\n"
	for version, want := range map[string]string{"0.2.0": "- two\n\n### Fixed\n\n- it", "0.1.0": "- one", "0.3.0": "- new"} {
		if got, err := changesIn(changelog, version); err != nil || got != want {
			t.Errorf("changesIn(%s) = %q, %v, want %q", version, got, err, want)
		}
	}
	if got, err := changesIn("# Changelog\n\n## Unreleased\n\n## 0.1.0\n\n- one\n", "0.2.0"); err == nil {
		t.Errorf("a version without changes has the notes %q", got)
	}
}

// untar returns the files of a packed tar file, which have one date and no owner.
func untar(t *testing.T, packed io.Reader) map[string][]byte {
	t.Helper()
	unpacked, err := gzip.NewReader(bufio.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for reader := tar.NewReader(unpacked); ; {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if header.ModTime.Unix() != 1700000000 || header.Uid != 0 || header.Gid != 0 {
			t.Errorf("%s is of %v and belongs to %d:%d", header.Name, header.ModTime, header.Uid, header.Gid)
		}
		data, err := io.ReadAll(reader)
		if err != nil {
			t.Fatal(err)
		}
		if header.Typeflag == tar.TypeReg {
			files[header.Name] = data
		}
	}
}

func readFile(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
