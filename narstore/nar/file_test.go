package nar_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/nar-p2p/nar-p2p/narstore/nar"
)

func TestAroundFile(t *testing.T) {
	for size := range int64(20) {
		contents := bytes.Repeat([]byte{'x'}, int(size))
		name := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(name, contents, 0o600); err != nil {
			t.Fatal(err)
		}
		var want bytes.Buffer
		if err := nar.Dump(&want, name); err != nil {
			t.Fatal(err)
		}
		before, behind := nar.AroundFile(size)
		if got := bytes.Join([][]byte{before, contents, behind}, nil); !bytes.Equal(got, want.Bytes()) {
			t.Errorf("NAR of %d bytes = %q, want %q", size, got, want.Bytes())
		}
	}
}
