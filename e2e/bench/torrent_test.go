package main

import (
	"bytes"
	"crypto/sha1"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

func TestMetainfo(t *testing.T) {
	data := bytes.Repeat([]byte("a piece and a bit "), pieceSize/16)
	path := filepath.Join(t.TempDir(), "cargo.nar")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := metainfo(path, "http://tracker/announce")
	if err != nil {
		t.Fatal(err)
	}
	first, last := sha1.Sum(data[:pieceSize]), sha1.Sum(data[pieceSize:])
	want := fmt.Sprintf("d8:announce23:http://tracker/announce4:infod6:lengthi%de4:name9:cargo.nar"+
		"12:piece lengthi1048576e6:pieces40:%s%see", len(data), first, last)
	if string(got) != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}
