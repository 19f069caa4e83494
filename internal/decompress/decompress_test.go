package decompress_test

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"io"
	"testing"

	"github.com/ulikunitz/xz"

	"github.com/nar-p2p/nar-p2p/internal/decompress"
)

// A block may ask for a dictionary of 4 GiB.
func TestXZDictionaryIsBounded(t *testing.T) {
	var file bytes.Buffer
	w, err := xz.WriterConfig{DictCap: 1 << 20}.NewWriter(&file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		bits byte // of the dictionary's size, tukaani.org/xz/xz-file-format.txt, 5.3.1
		ok   bool
	}{
		{16, true},  // 1 MiB
		{28, true},  // 64 MiB
		{29, false}, // 96 MiB
		{40, false}, // 4 GiB - 1
	} {
		b := bytes.Clone(file.Bytes())
		const header = 12 // where the block's begins: its size, flags, filter, size of the properties
		end := header + 4*int(b[header])
		at := header + bytes.Index(b[header:end], []byte{0x21, 1}) + 2
		b[at] = tt.bits
		binary.LittleEndian.PutUint32(b[end:], crc32.ChecksumIEEE(b[header:end]))
		got, err := read(b)
		if ok := err == nil && len(got) == 1000; ok != tt.ok {
			t.Errorf("dictionary of %d bits: %d bytes, %v", tt.bits, len(got), err)
		}
	}
}

func read(xz []byte) ([]byte, error) {
	r, err := decompress.NewReader("xz", bytes.NewReader(xz))
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}
