package upstream

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
)

// slowReader gives so many bytes after each pause, and ends with its context.
type slowReader struct {
	done  <-chan struct{}
	pause time.Duration
	bytes int
}

func (s slowReader) Read(p []byte) (int, error) {
	select {
	case <-time.After(s.pause):
		return min(s.bytes, len(p)), nil
	case <-s.done:
		return 0, context.Canceled
	}
}

func TestProgress(t *testing.T) {
	for _, tt := range []struct {
		name    string
		pause   time.Duration
		bytes   int
		stalled bool
	}{
		{"fast", time.Millisecond, 64 << 10, false},
		{"slow line, 2 kB/s", time.Second, 2 << 10, false},
		{"silent", time.Hour, 1, true},
		{"a byte now and then", 5 * time.Second, 1, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				r := &progressReader{r: slowReader{ctx.Done(), tt.pause, tt.bytes}, cancel: cancel}
				_, err := io.CopyN(io.Discard, r, 1<<20)
				if stalled := errors.Is(err, errStalled); stalled != tt.stalled {
					t.Errorf("error %v, want stalled: %v", err, tt.stalled)
				}
			})
		})
	}
}

func TestOurOwnPausesDoNotCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		r := &progressReader{r: slowReader{ctx.Done(), time.Second, 10}, cancel: cancel}
		for range 10 {
			if _, err := r.Read(make([]byte, 10)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
		}
	})
}

// What a decoder has yet to come to is read meanwhile, as far as there is room for it.
func TestReadsAheadOfTheDecoder(t *testing.T) {
	var file bytes.Buffer
	w, err := gzip.NewWriterLevel(&file, gzip.NoCompression)
	if err != nil {
		t.Fatal(err)
	}
	nar := bytes.Repeat([]byte("nar"), aheadPieces*aheadPiece)
	if _, err := w.Write(nar); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	whole := file.Len()
	synctest.Test(t, func(t *testing.T) {
		s := &stream{plain: &file, body: io.NopCloser(nil), cancel: func() {}}
		info := &narinfo.Info{Compression: "gzip", NARSize: int64(len(nar))}
		if err := errors.Join(s.readAhead(info), s.decode(info.Compression)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if ahead := whole - file.Len(); ahead < aheadPieces*aheadPiece || ahead > (aheadPieces+1)*aheadPiece {
			t.Errorf("%d bytes read ahead, want about %d", ahead, aheadPieces*aheadPiece)
		}
		if got, err := io.ReadAll(io.LimitReader(s, int64(len(nar)/2))); err != nil || !bytes.Equal(got, nar[:len(nar)/2]) {
			t.Errorf("%d bytes, %v, want %d of the NAR", len(got), err, len(nar)/2)
		}
		// What reads ahead ends, or the test would not.
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}
