package swarm_test

import (
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/zap/zaptest"

	"github.com/nar-p2p/nar-p2p/narstore/chunk"
	"github.com/nar-p2p/nar-p2p/narstore/nar"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/p2p/exchange"
	"github.com/nar-p2p/nar-p2p/p2p/exchange/exchangetest"
)

// TestFilesGo takes files away from under a session. What was being read can be
// read on; what had not been opened ends the session, and the provider says at
// once that it does not hold the NAR.
func TestFilesGo(t *testing.T) {
	root := t.TempDir()
	for i, name := range []string{"first", "second"} {
		if err := os.WriteFile(filepath.Join(root, name), exchangetest.Bytes(byte(i), 4<<20), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	catalog, _ := catalogOf(t, root, hashOf(t, root))
	provider, _ := provider(t, catalog, exchange.ServerConfig{})
	h := exchangetest.NewHost(t)
	exchangetest.Connect(t, h, provider)
	client := exchange.NewClient(h, exchange.ClientConfig{}, zaptest.NewLogger(t))
	hash := hashOf(t, root)
	s, err := client.OpenNAR(t.Context(), provider.ID(), hash, true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	chunks := receiveManifest(t, s, hash, root)
	receive := func(c *chunk.Chunk) error {
		if err := s.Ask([]chunk.Chunk{*c}); err != nil {
			return err
		}
		return s.Receive(c, make([]byte, c.Length))
	}
	if err := receive(&chunks[0]); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"first", "second"} {
		if err := os.Remove(filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range chunks[1:8] {
		if err := receive(&chunks[1+i]); err != nil {
			t.Fatalf("the file that was open: %v", err)
		}
	}
	if holdings, err := client.Have(t.Context(), provider.ID(), []nix.NARHash{hash}); err != nil || !holdings[0].Held {
		t.Errorf("Have() = %v, %v before anything was missed", holdings, err)
	}
	if err := receive(&chunks[len(chunks)-1]); !errors.Is(err, exchange.ErrNotHeld) {
		t.Errorf("the file that has gone: %v, want ErrNotHeld", err)
	}
	if holdings, err := client.Have(t.Context(), provider.ID(), []nix.NARHash{hash}); err != nil || holdings[0].Held {
		t.Errorf("Have() = %v, %v once a file was missed", holdings, err)
	}
}

func hashOf(t *testing.T, root string) nix.NARHash {
	t.Helper()
	sum := sha256.New()
	if err := nar.Dump(sum, root); err != nil {
		t.Fatal(err)
	}
	return nix.NARHash(sum.Sum(nil))
}

func receiveManifest(t *testing.T, s *exchange.Session, hash nix.NARHash, root string) []chunk.Chunk {
	t.Helper()
	size := sizeOf(t, root)
	dec := chunk.NewDecoder(hash, size)
	if err := s.AskManifest(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.ReceiveManifest(size, func(b []byte) error { _, err := dec.Write(b); return err }); err != nil {
		t.Fatal(err)
	}
	return dec.Chunks()
}
