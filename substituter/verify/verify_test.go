package verify_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/substituter/verify"
)

// nar returns size reproducible bytes and their target.
func nar(size int64) ([]byte, verify.Target) {
	b := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b)
	return b, verify.Target{Hash: sha256.Sum256(b), Size: size}
}

// write feeds p to the gate in pieces of odd lengths.
func write(t *testing.T, g *verify.Gate, p []byte) error {
	t.Helper()
	for n := 1; len(p) > 0; n = n*3 + 1 {
		n = min(n, len(p), 300_000)
		if _, err := g.Write(p[:n]); err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

func TestGatePassesTheRangeAndHoldsItsEnd(t *testing.T) {
	const size, hold = 3<<20 + 7, 64 << 10
	b, target := nar(size)
	for _, tt := range []struct {
		name     string
		want     verify.Range
		wantSent int64 // before Finish
	}{
		{"whole", verify.Range{From: 0, To: size}, size - hold},
		{"resume", verify.Range{From: 1<<20 + 3, To: size}, size - hold - 1<<20 - 3},
		{"middle", verify.Range{From: 100, To: 1 << 20}, 1<<20 - 100 - hold},
		{"shorter than what is held", verify.Range{From: 5, To: 4096}, 0},
		{"last byte", verify.Range{From: size - 1, To: size}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			g := verify.NewGate(&out, verify.NewDigest(target), tt.want, hold)
			if err := write(t, g, b); err != nil {
				t.Fatal(err)
			}
			if got := int64(out.Len()); got != tt.wantSent || g.Sent() != tt.wantSent {
				t.Errorf("sent before Finish: %d, Sent() = %d, want %d", got, g.Sent(), tt.wantSent)
			}
			if err := g.Finish(); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(out.Bytes(), b[tt.want.From:tt.want.To]) {
				t.Error("the range is not what was written")
			}
		})
	}
}

func TestGateKeepsWhatDoesNotMatch(t *testing.T) {
	b, target := nar(1 << 20)
	for _, tt := range []struct {
		name string
		data []byte
	}{
		{"an early bit", append([]byte{b[0] ^ 1}, b[1:]...)},
		{"the last bit", append(bytes.Clone(b[:len(b)-1]), b[len(b)-1]^1)},
		{"too short", b[:len(b)-1]},
		{"nothing", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			g := verify.NewGate(&out, verify.NewDigest(target), verify.Range{From: 0, To: target.Size}, 1<<16)
			if err := write(t, g, tt.data); err != nil {
				t.Fatal(err)
			}
			if err := g.Finish(); !errors.Is(err, verify.ErrMismatch) {
				t.Errorf("Finish() = %v, want ErrMismatch", err)
			}
			if out.Len() > len(b)-1<<16 {
				t.Errorf("%d bytes went out", out.Len())
			}
		})
	}
	t.Run("too long", func(t *testing.T) {
		g := verify.NewGate(&bytes.Buffer{}, verify.NewDigest(target), verify.Range{From: 0, To: target.Size}, 1<<16)
		if err := write(t, g, append(bytes.Clone(b), 0)); !errors.Is(err, verify.ErrMismatch) {
			t.Errorf("Write of one byte too many: %v, want ErrMismatch", err)
		}
	})
}

type brokenWriter struct{}

var errBroken = errors.New("broken pipe")

func (brokenWriter) Write([]byte) (int, error) { return 0, errBroken }

func TestClientErrorIsNotTheSources(t *testing.T) {
	b, target := nar(1 << 20)
	g := verify.NewGate(brokenWriter{}, verify.NewDigest(target), verify.Range{From: 0, To: target.Size}, 10)
	err := write(t, g, b)
	var client *verify.ClientError
	if !errors.As(err, &client) || !errors.Is(err, errBroken) {
		t.Errorf("Write = %v, want a ClientError with the cause", err)
	}
}

func TestResumeContinuesTheHash(t *testing.T) {
	const size, cut = 5<<20 + 11, 3<<20 + 500
	b, target := nar(size)
	cache := verify.NewCache()
	whole := verify.Range{From: 0, To: size}

	first := verify.NewGate(&bytes.Buffer{}, verify.NewDigest(target), whole, 1<<16)
	first.Keep(cache)
	first.Digest().MarkPeers()
	if err := write(t, first, b[:cut]); err != nil {
		t.Fatal(err)
	}

	digest := cache.Resume(target, cut)
	if digest.Offset() != 3<<20 || !digest.FromPeers() {
		t.Fatalf("Resume at %d: offset %d, from peers %v; want %d, true", cut, digest.Offset(), digest.FromPeers(), 3<<20)
	}
	var out bytes.Buffer
	second := verify.NewGate(&out, digest, verify.Range{From: cut, To: size}, 1<<16)
	second.Keep(cache)
	if err := write(t, second, b[3<<20:]); err != nil {
		t.Fatal(err)
	}
	if err := second.Finish(); err != nil || !bytes.Equal(out.Bytes(), b[cut:]) {
		t.Errorf("Finish() = %v, and the resumed bytes equal: %v", err, bytes.Equal(out.Bytes(), b[cut:]))
	}

	cache.Drop(target)
	if got := cache.Resume(target, size).Offset(); got != 0 {
		t.Errorf("offset after Drop: %d, want 0", got)
	}
}

func TestResumeBehindWrongBytesDoesNotMatch(t *testing.T) {
	const size, cut = 4 << 20, 2 << 20
	b, target := nar(size)
	bad := append([]byte{b[0] ^ 1}, b[1:]...)
	cache := verify.NewCache()
	first := verify.NewGate(&bytes.Buffer{}, verify.NewDigest(target), verify.Range{From: 0, To: size}, 1<<16)
	first.Keep(cache)
	if err := write(t, first, bad[:cut]); err != nil {
		t.Fatal(err)
	}
	second := verify.NewGate(&bytes.Buffer{}, cache.Resume(target, cut), verify.Range{From: cut, To: size}, 1<<16)
	if err := write(t, second, b[cut:]); err != nil {
		t.Fatal(err)
	}
	if err := second.Finish(); !errors.Is(err, verify.ErrMismatch) {
		t.Errorf("Finish() = %v, want ErrMismatch: the client has a wrong prefix", err)
	}
}

func TestTwoReadingsThatDiffer(t *testing.T) {
	const size = 4 << 20
	b, target := nar(size)
	bad := append([]byte{b[0] ^ 1}, b[1:]...)
	cache := verify.NewCache()
	wrong := verify.NewGate(&bytes.Buffer{}, verify.NewDigest(target), verify.Range{From: 0, To: size}, 1<<16)
	wrong.Keep(cache)
	if err := write(t, wrong, bad[:3<<20]); err != nil {
		t.Fatal(err)
	}
	right := verify.NewGate(&bytes.Buffer{}, verify.NewDigest(target), verify.Range{From: 0, To: size}, 1<<16)
	right.Keep(cache)
	if err := write(t, right, b); err != nil {
		t.Fatal(err)
	}
	if !right.Conflict() {
		t.Error("the difference went unnoticed")
	}
	if err := right.Finish(); err != nil {
		t.Errorf("Finish() = %v for a reading that is right from its first byte on", err)
	}
	if got := cache.Resume(target, size).Offset(); got != 0 {
		t.Errorf("a state survived at %d", got)
	}
}

// Whoever resumes may have begun with the other reading.
func TestResumeBehindAReadingThatDiffers(t *testing.T) {
	const size = 4 << 20
	b, target := nar(size)
	bad := append([]byte{b[0] ^ 1}, b[1:]...)
	cache := verify.NewCache()
	wrong := verify.NewGate(&bytes.Buffer{}, verify.NewDigest(target), verify.Range{From: 0, To: size}, 1<<16)
	wrong.Keep(cache)
	if err := write(t, wrong, bad[:3<<20]); err != nil {
		t.Fatal(err)
	}
	resumed := verify.NewGate(&bytes.Buffer{}, verify.NewDigest(target), verify.Range{From: 3 << 20, To: size}, 1<<16)
	resumed.Keep(cache)
	if err := write(t, resumed, b); err != nil {
		t.Fatal(err)
	}
	if err := resumed.Finish(); !errors.Is(err, verify.ErrMismatch) {
		t.Errorf("Finish() = %v where the client has another reading's beginning", err)
	}
}

func TestCloneGoesOnByItself(t *testing.T) {
	b, target := nar(1000)
	d := verify.NewDigest(target)
	_, _ = d.Write(b[:500])
	c := d.Clone()
	_, _ = d.Write([]byte("something else"))
	_, _ = c.Write(b[500:])
	if got := []bool{c.Matches(), d.Matches()}; !cmp.Equal(got, []bool{true, false}) {
		t.Errorf("clone and original match: %v, want [true false]", got)
	}
}

// A record that proves itself may claim any size.
func TestStatesOfAnAbsurdSize(t *testing.T) {
	c := verify.NewCache()
	target := verify.Target{Hash: nix.NARHash{1}, Size: math.MaxInt64}
	if d := c.Resume(target, math.MaxInt64-1); d.Offset() != 0 {
		t.Errorf("resumed at %d", d.Offset())
	}
	c.Drop(target)
}
