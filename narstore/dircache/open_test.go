package dircache_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/ulikunitz/xz"
	"go.uber.org/zap/zaptest"

	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/dircache"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/narstore/storetest"
)

// content is what stands for a NAR where it does not matter.
var content = bytes.Repeat([]byte("content\n"), 100)

// newRecord describes content at a URL.
func newRecord(t *testing.T, url, compression string) *narinfo.Info {
	t.Helper()
	path, err := nix.ParseBaseName("00000000000000000000000000000001-" + "name")
	if err != nil {
		t.Fatal(err)
	}
	return &narinfo.Info{
		StorePath: path, URL: url, Compression: compression, NARHash: sha256.Sum256(content), NARSize: int64(len(content)),
	}
}

// put writes a record into a cache.
func put(t *testing.T, dir string, rec *narinfo.Info) {
	t.Helper()
	putFile(t, filepath.Join(dir, rec.StorePath.HashPart().String()+".narinfo"), rec.Bytes())
}

func putFile(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// readAll opens a path of the cache and reads its NAR.
func readAll(ctx context.Context, store *dircache.Store, path nix.StorePath) ([]byte, error) {
	info, err := store.Info(ctx, path.HashPart())
	if err != nil {
		return nil, err
	}
	nar, err := store.Open(ctx, info)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.NewSectionReader(nar, 0, nar.Size()))
	return data, errors.Join(err, nar.Close())
}

func TestOpenCompressed(t *testing.T) {
	n := storetest.NewNix(t)
	scratch := t.TempDir()
	for _, compression := range []string{"none", "xz", "zstd", "bzip2", "br"} {
		t.Run(compression, func(t *testing.T) {
			dir := t.TempDir()
			path := n.AddTree(t, compression, compression)
			copyTo(t, n, dir, compression, path)
			store := open(t, dircache.Config{Dir: dir, ScratchDir: scratch})
			for range 2 { // decompressed, and kept
				got, err := readAll(t.Context(), store, path)
				if err != nil || !bytes.Equal(got, n.Dump(t, path)) {
					t.Errorf("NAR differs from `nix-store --dump`, %v", err)
				}
			}
		})
	}
	if files, err := os.ReadDir(scratch); err != nil || len(files) != 0 {
		t.Errorf("in the scratch folder are %v, %v", files, err)
	}
}

// TestURLs: nothing but a regular file in the cache is read.
func TestURLs(t *testing.T) {
	outside := t.TempDir()
	putFile(t, filepath.Join(outside, "nar"), content)
	dir := filepath.Join(outside, "cache")
	putFile(t, filepath.Join(dir, "nar/good"), content)
	for name, target := range map[string]string{"out": "../../nar", "absolute": filepath.Join(outside, "nar"), "inside": "good", "dir-out": "../.."} {
		if err := os.Symlink(target, filepath.Join(dir, "nar", name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "nar/pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	store := open(t, dircache.Config{Dir: dir})
	for url, ok := range map[string]bool{
		"nar/good":                         true,
		"./nar//good":                      true,
		"nar/inside":                       true,
		"../nar":                           false,
		"nar/../../nar":                    false,
		filepath.Join(outside, "nar"):      false,
		filepath.Join(dir, "nar/good"):     false,
		"file://" + dir + "/nar/good":      false,
		"nar/out":                          false,
		"nar/absolute":                     false,
		"nar/dir-out/nar":                  false,
		"nar/pipe":                         false,
		"nar":                              false,
		"nar/missing":                      false,
		"nar/" + strings.Repeat("x", 5000): false,
	} {
		rec := newRecord(t, url, "none")
		put(t, dir, rec)
		if got, err := readAll(t.Context(), store, rec.StorePath); (err == nil) != ok || ok && !bytes.Equal(got, content) {
			t.Errorf("URL %.100q is read: %v, want %v; %v", url, err == nil, ok, err)
		}
	}
}

func TestDamaged(t *testing.T) {
	n := storetest.NewNix(t)
	tests := []struct {
		name        string
		compression string
		damage      func(rec *narinfo.Info, data []byte) []byte
	}{
		{"shorter", "none", func(_ *narinfo.Info, data []byte) []byte { return data[:len(data)-1] }},
		{"longer", "none", func(_ *narinfo.Info, data []byte) []byte { return append(data, 0) }},
		{"compressed shorter", "xz", func(_ *narinfo.Info, data []byte) []byte { return data[:len(data)-1] }},
		{"cut", "xz", func(rec *narinfo.Info, data []byte) []byte { rec.FileSize = 0; return data[:len(data)/2] }},
		{"not compressed", "zstd", func(rec *narinfo.Info, _ []byte) []byte { rec.FileSize = 0; return content }},
		{"another size", "xz", func(rec *narinfo.Info, data []byte) []byte { rec.NARSize--; return data }},
		{"a larger size", "br", func(rec *narinfo.Info, data []byte) []byte { rec.NARSize++; return data }},
		{"another hash", "bzip2", func(rec *narinfo.Info, data []byte) []byte { rec.NARHash[0]++; return data }},
		{"unknown compression", "xz", func(rec *narinfo.Info, data []byte) []byte { rec.Compression = "lzip"; return data }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			path := n.AddTree(t, "tree", "tree")
			copyTo(t, n, dir, test.compression, path)
			text, err := os.ReadFile(filepath.Join(dir, path.HashPart().String()+".narinfo"))
			if err != nil {
				t.Fatal(err)
			}
			rec, err := narinfo.Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(dir, rec.URL)
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			data = test.damage(rec, data)
			if err := errors.Join(os.Remove(file), os.WriteFile(file, data, 0o600)); err != nil {
				t.Fatal(err)
			}
			put(t, dir, rec)
			store := open(t, dircache.Config{Dir: dir})
			for range 2 { // and it is not kept
				if _, err := readAll(t.Context(), store, path); err == nil || errors.Is(err, narstore.ErrNotFound) {
					t.Errorf("Open = %v, want an error other than ErrNotFound", err)
				}
			}
		})
	}
}

// TestScratchLimit: what nobody reads makes room, what is open stays.
func TestScratchLimit(t *testing.T) {
	n := storetest.NewNix(t)
	dir := t.TempDir()
	paths := []nix.StorePath{n.AddTree(t, "one", "one"), n.AddTree(t, "two", "two"), n.AddTree(t, "six", "six")}
	copyTo(t, n, dir, "zstd", paths...)
	size := int64(len(n.Dump(t, paths[0])))
	store := open(t, dircache.Config{Dir: dir, ScratchLimit: 2*size + 100})
	ctx := t.Context()

	infos := make([]*narstore.PathInfo, len(paths))
	for i, path := range paths {
		var err error
		if infos[i], err = store.Info(ctx, path.HashPart()); err != nil {
			t.Fatal(err)
		}
		if _, err := readAll(ctx, store, path); err != nil {
			t.Errorf("with room to be made: %v", err)
		}
	}
	first, err := store.Open(ctx, infos[0])
	if err != nil {
		t.Fatal(err)
	}
	second, err := store.Open(ctx, infos[1])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.Open(ctx, infos[2]); err == nil || !strings.Contains(err.Error(), "no scratch space") {
		t.Errorf("Open beyond the limit = %v, want an error that says so", err)
	}
	if again, err := store.Open(ctx, infos[0]); err != nil {
		t.Errorf("Open of what is open: %v", err)
	} else {
		again.Close()
	}
	first.Close()
	third, err := store.Open(ctx, infos[2])
	if err != nil {
		t.Fatalf("Open after a Close: %v", err)
	}
	// NARs outlive the store.
	store.Close()
	for i, nar := range []narstore.NAR{second, third} {
		got, err := io.ReadAll(io.NewSectionReader(nar, 0, nar.Size()))
		if err != nil || !bytes.Equal(got, n.Dump(t, paths[i+1])) {
			t.Errorf("NAR %d differs from `nix-store --dump`, %v", i+1, err)
		}
		nar.Close()
	}
	if _, err := store.Open(ctx, infos[0]); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Open on a closed store = %v, want os.ErrClosed", err)
	}
}

// TestAbsurdSizes: what a record says of itself costs neither disk nor memory.
func TestAbsurdSizes(t *testing.T) {
	var file bytes.Buffer
	w, err := xz.WriterConfig{DictCap: 1 << 20}.NewWriter(&file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	good := newRecord(t, "nar", "xz")
	absurd := newRecord(t, "nar", "xz")
	absurd.StorePath, err = nix.ParseBaseName("00000000000000000000000000000002-" + "name")
	if err != nil {
		t.Fatal(err)
	}
	absurd.NARHash[0]++
	absurd.NARSize = math.MaxInt64 - 1

	t.Run("size", func(t *testing.T) {
		dir := t.TempDir()
		putFile(t, filepath.Join(dir, "nar"), file.Bytes())
		put(t, dir, good)
		put(t, dir, absurd)
		store := open(t, dircache.Config{Dir: dir})
		if _, err := readAll(t.Context(), store, good.StorePath); err != nil {
			t.Fatal(err)
		}
		if _, err := readAll(t.Context(), store, absurd.StorePath); err == nil || !strings.Contains(err.Error(), "no scratch space") {
			t.Errorf("Open of a NAR of 8 EiB = %v, want an error that says so", err)
		}
	})
	t.Run("dictionary", func(t *testing.T) {
		dir := t.TempDir()
		// The block header: its length, flags, the filter LZMA2 with one byte of
		// properties, padding, and a checksum.
		data := bytes.Clone(file.Bytes())
		header := data[12:20]
		header[4] = 30 // 128 MiB
		binary.LittleEndian.PutUint32(data[20:], crc32.ChecksumIEEE(header))
		putFile(t, filepath.Join(dir, "nar"), data)
		put(t, dir, good)
		store := open(t, dircache.Config{Dir: dir})
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if _, err := readAll(t.Context(), store, good.StorePath); err == nil || !strings.Contains(err.Error(), "dictionary") {
			t.Errorf("Open of a file that wants a dictionary of 128 MiB = %v, want an error that says so", err)
		}
		runtime.ReadMemStats(&after)
		if took := after.TotalAlloc - before.TotalAlloc; took > 32<<20 {
			t.Errorf("a NAR of %d bytes took %d bytes of memory", len(content), took)
		}
	})
}

// TestGiveUp: callers that give up leave neither work nor room behind.
func TestGiveUp(t *testing.T) {
	n := storetest.NewNix(t)
	dir := t.TempDir()
	path := n.AddTree(t, "tree", "seed")
	copyTo(t, n, dir, "xz", path)
	size := int64(len(n.Dump(t, path)))
	store := open(t, dircache.Config{Dir: dir, ScratchLimit: size})
	info, err := store.Info(t.Context(), path.HashPart())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if nar, err := store.Open(ctx, info); err == nil {
		nar.Close() // ready before the context was looked at
	} else if !errors.Is(err, context.Canceled) {
		t.Errorf("Open = %v, want context.Canceled", err)
	}
	for {
		_, err := readAll(t.Context(), store, path)
		if err == nil {
			break
		}
		if !strings.Contains(err.Error(), "no scratch space") {
			t.Fatal(err)
		}
	}
}

func TestMalformedRecords(t *testing.T) {
	dir := t.TempDir()
	rec := newRecord(t, "nar/good", "none")
	put(t, dir, rec)
	other := filepath.Join(dir, "00000000000000000000000000000002.narinfo")
	putFile(t, other, rec.Bytes())
	putFile(t, filepath.Join(dir, "00000000000000000000000000000003.narinfo"), []byte("StorePath: x\n"))
	putFile(t, filepath.Join(dir, "00000000000000000000000000000004.narinfo"), bytes.Repeat([]byte("x"), narinfo.MaxSize+10))
	putFile(t, filepath.Join(dir, "name.narinfo"), rec.Bytes())
	putFile(t, filepath.Join(dir, "nix-cache-info"), []byte("StoreDir: /nix/store\n"))
	if err := os.Mkdir(filepath.Join(dir, "00000000000000000000000000000005.narinfo"), 0o755); err != nil {
		t.Fatal(err)
	}
	store := open(t, dircache.Config{Dir: dir})
	v := storetest.Watch(t, store)
	v.Until("the good record", func() bool { return v.Has(rec.StorePath) })
	for _, digit := range []string{"2", "3", "4", "5"} {
		part, err := nix.ParseHashPart(strings.Repeat("0", 31) + digit)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := store.Info(t.Context(), part); err == nil || errors.Is(err, narstore.ErrNotFound) {
			t.Errorf("Info(%s) = %v, want an error other than ErrNotFound", part, err)
		}
	}
	// A record that was malformed is told of when it is no longer.
	fixed := newRecord(t, "nar/good", "none")
	path, err := nix.ParseBaseName("00000000000000000000000000000002-fixed")
	if err != nil {
		t.Fatal(err)
	}
	fixed.StorePath = path
	if err := os.Remove(other); err != nil {
		t.Fatal(err)
	}
	put(t, dir, fixed)
	v.Until("the mended record", func() bool { return v.Has(rec.StorePath, fixed.StorePath) })
}

func TestNoDirectory(t *testing.T) {
	if _, err := dircache.Open(dircache.Config{Dir: filepath.Join(t.TempDir(), "missing")}, zaptest.NewLogger(t)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Open of nothing = %v, want an error that is os.ErrNotExist", err)
	}
}
