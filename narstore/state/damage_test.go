package state_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/nar-p2p/nar-p2p/narstore/state"
)

const sampleKeys = 400

func sampleKey(i int) []byte { return fmt.Appendf(nil, "key %04d", i) }

func sampleValue(i int) []byte {
	b := make([]byte, 2000)
	rand.NewChaCha8([32]byte{byte(i), byte(i >> 8)}).Read(b)
	return b
}

// image is the content of a file: data, and zeros up to size. Badger's logs are
// mostly zeros.
type image struct {
	data []byte
	size int
}

// grown returns a copy whose data has at least n bytes.
func (f image) grown(n int) image {
	return image{append(bytes.Clone(f.data), make([]byte, max(0, n-len(f.data)))...), max(f.size, n)}
}

// sample returns the files of a database that was closed and then opened by a
// process that was killed: tables and a log.
func sample(t *testing.T) map[string]image {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "state")
	for part := range 2 {
		db := open(t, dir)
		for i := part * sampleKeys / 2; i < (part+1)*sampleKeys/2; i++ {
			if err := db.Bucket("sample").Put(sampleKey(i), sampleValue(i), 0); err != nil {
				t.Fatal(err)
			}
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	startChild(t, dir, 100)()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	files := make(map[string]image)
	for _, e := range entries {
		content, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[e.Name()] = image{bytes.TrimRight(content, "\x00"), len(content)}
	}
	return files
}

// write makes a folder of these files.
func write(t *testing.T, dir string, files map[string]image) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, file := range files {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, file.data, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, int64(file.size)); err != nil {
			t.Fatal(err)
		}
	}
}

// openDamaged opens a database and checks that it works, that it gives no wrong
// values, and that it warns where it has set the old one aside. It returns how
// many of the sample's values are left.
func openDamaged(t *testing.T, dir string) int {
	t.Helper()
	core, logs := observer.New(zapcore.WarnLevel)
	db, err := state.Open(dir, zap.New(core))
	if err != nil {
		t.Errorf("Open = %v", err)
		return 0
	}
	defer func() {
		if err := db.Close(); err != nil {
			t.Errorf("Close = %v", err)
		}
	}()
	b := db.Bucket("sample")
	left := 0
	for i := range sampleKeys {
		got, err := b.Get(sampleKey(i))
		switch {
		case errors.Is(err, state.ErrNotFound):
		case err != nil || !bytes.Equal(got, sampleValue(i)):
			t.Errorf("key %d: %d wrong bytes, %v", i, len(got), err)
		default:
			left++
		}
	}
	if err := b.Put([]byte("new"), []byte("value"), 0); err != nil {
		t.Errorf("Put = %v", err)
	}
	if got, err := b.Get([]byte("new")); err != nil || string(got) != "value" {
		t.Errorf("Get = %q, %v", got, err)
	}
	if set, warned := len(aside(t, dir)), logs.Len(); set != warned {
		t.Errorf("%d folders are set aside, %d warnings: %v", set, warned, logs.All())
	}
	return left
}

func TestCrashedIsSound(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	write(t, dir, sample(t))
	if left := openDamaged(t, dir); left != sampleKeys {
		t.Errorf("%d of %d values are left", left, sampleKeys)
	}
	if got := aside(t, dir); len(got) > 0 {
		t.Errorf("set aside: %q", got)
	}
}

func TestDamage(t *testing.T) {
	files := sample(t)
	random := rand.New(rand.NewPCG(1, 2))
	kinds := make(map[string]bool)
	for name, file := range files {
		kinds[filepath.Ext(name)] = true
		t.Run(name+" deleted", func(t *testing.T) {
			t.Parallel()
			spoilt := maps.Clone(files)
			delete(spoilt, name)
			testDamaged(t, spoilt)
		})
		for damage, spoiltFile := range damages(file, random) {
			t.Run(name+" "+damage, func(t *testing.T) {
				t.Parallel()
				spoilt := maps.Clone(files)
				spoilt[name] = spoiltFile
				testDamaged(t, spoilt)
			})
		}
	}
	for _, kind := range []string{"", ".sst", ".mem"} { // "" is MANIFEST and the like
		if !kinds[kind] {
			t.Errorf("the sample has no file of kind %q", kind)
		}
	}
}

// testDamaged opens a damaged database twice: what is there after the first time
// is sound.
func testDamaged(t *testing.T, files map[string]image) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "state")
	write(t, dir, files)
	openDamaged(t, dir)
	before := len(aside(t, dir))
	db := open(t, dir)
	if got, err := db.Bucket("sample").Get([]byte("new")); err != nil || string(got) != "value" {
		t.Errorf("opened again: %q, %v", got, err)
	}
	if now := len(aside(t, dir)); now != before {
		t.Errorf("%d folders are set aside, %d before", now, before)
	}
}

// damages returns ways to spoil a file.
func damages(file image, random *rand.Rand) map[string]image {
	d := map[string]image{
		"empty":       {},
		"zeros":       {nil, file.size},
		"more at end": {append(file.grown(file.size).data, 1, 2, 3, 4), file.size + 4},
	}
	n := file.size
	if n == 0 {
		return d
	}
	for _, cut := range []int{1, n / 2, n - 4, n - 1} {
		if cut > 0 && cut < n {
			d[fmt.Sprintf("cut to %d of %d", cut, n)] = image{file.data[:min(cut, len(file.data))], cut}
		}
	}
	flip := func(at int) {
		f := file.grown(at + 1)
		f.data[at] ^= 0xff
		d[fmt.Sprintf("flipped at %d of %d", at, n)] = f
	}
	// The ends hold headers and footers.
	for i := range min(n, 4) {
		flip(i)
		if len(file.data) == n {
			flip(n - 1 - i)
		}
	}
	for range 4 {
		flip(random.IntN(max(1, len(file.data))))
	}
	return d
}

func TestOldestDamagedIsDropped(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state [x]")
	var made []string
	for range 4 {
		db := open(t, dir)
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "MANIFEST"), []byte("nonsense"), 0o600); err != nil {
			t.Fatal(err)
		}
		db = open(t, dir)
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		entries, err := os.ReadDir(filepath.Dir(dir))
		if err != nil {
			t.Fatal(err)
		}
		made = made[:0]
		for _, e := range entries {
			if e.IsDir() && e.Name() != filepath.Base(dir) {
				made = append(made, e.Name())
			}
		}
	}
	if len(made) != 2 {
		t.Errorf("%q are kept, want 2", made)
	}
}

// A folder of another kind is no database, and is not deleted either.
func TestForeignFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "notes"), []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	openDamaged(t, dir)
	found := aside(t, dir)
	if len(found) != 1 {
		t.Fatalf("set aside: %q", found)
	}
	if got, err := os.ReadFile(filepath.Join(found[0], "notes")); err != nil || string(got) != "mine" {
		t.Errorf("%q, %v", got, err)
	}
}
