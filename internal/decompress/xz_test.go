package decompress

import (
	"bytes"
	"io"
	"testing"

	"github.com/ulikunitz/xz"
)

// A block may ask for a dictionary of 4 GiB.
func TestXZDictionaryIsBounded(t *testing.T) {
	var file bytes.Buffer
	w, err := xz.WriterConfig{DictCap: 1 << 20}.NewWriter(&file)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = w.Write(make([]byte, 1000))
	_ = w.Close()
	b := file.Bytes()
	at := bytes.Index(b, []byte{xzLZMA2, 1}) + 2
	b[at] = 40 // 4 GiB - 1
	if got, err := io.ReadAll(newXZReader(bytes.NewReader(b), 1000)); err != nil || len(got) != 1000 {
		t.Errorf("1000 bytes wanted: %d, %v", len(got), err)
	}
	if _, err := io.ReadAll(newXZReader(bytes.NewReader(b), 1<<32)); err == nil {
		t.Error("4 GiB wanted: no error")
	}
}

// What the xz package reads we read alike.
func FuzzXZ(f *testing.F) {
	for _, block := range []int64{0, 100} {
		var file bytes.Buffer
		w, err := xz.WriterConfig{BlockSize: block, DictCap: 4096}.NewWriter(&file)
		if err != nil {
			f.Fatal(err)
		}
		_, _ = w.Write(bytes.Repeat([]byte("nar"), 100))
		_ = w.Close()
		f.Add(file.Bytes())
	}
	const limit = 1 << 20
	f.Fuzz(func(t *testing.T, b []byte) {
		ours, err := io.ReadAll(io.LimitReader(newXZReader(bytes.NewReader(b), limit), limit))
		if err != nil || len(ours) == limit {
			return // the oracle would allocate any dictionary
		}
		r, err := xz.ReaderConfig{SingleStream: true}.NewReader(bytes.NewReader(b))
		if err != nil {
			return // it checks the headers' checksums
		}
		if theirs, err := io.ReadAll(r); err == nil && !bytes.Equal(ours, theirs) {
			t.Errorf("%d bytes, want %d", len(ours), len(theirs))
		}
	})
}
