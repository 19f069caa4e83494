package psk_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/pnet"

	"github.com/nar-p2p/nar-p2p/internal/psk"
)

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	key := pnet.PSK(bytes.Repeat([]byte{0xa5}, 32))
	got, err := psk.Load(write("key", psk.Format(key), 0o640))
	if err != nil || !bytes.Equal(got, key) {
		t.Errorf("Load(Format(key)) = %x, %v", got, err)
	}
	const secret = "a5a5a5a5"
	for name, tt := range map[string]struct {
		text string
		mode os.FileMode
		want string
	}{
		"everybody": {psk.Format(key), 0o644, "mode 0644"},
		"empty":     {"", 0o600, "not a file of the form"},
		"short":     {psk.Format(key)[:80], 0o600, "not a file of the form"},
		"bare":      {strings.Repeat(secret, 8), 0o600, "not a file of the form"},
	} {
		path := write(name, tt.text, tt.mode)
		_, err := psk.Load(path)
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v, want an error with %q and the path", name, err, tt.want)
		} else if strings.Contains(err.Error(), secret) {
			t.Errorf("%s: the error tells the key: %v", name, err)
		}
	}
}
