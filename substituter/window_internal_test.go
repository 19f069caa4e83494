package substituter

import (
	"errors"
	"testing"
)

// Who reads alone is overtaken by nobody, though it has stopped in the middle of a
// segment and nothing can be spilled.
func TestTheFurthestIsNotOvertaken(t *testing.T) {
	w := newWindow(0, false, newSpool(t.TempDir(), 0))
	r := w.reader(0)
	defer r.close()
	if _, err := w.Write(make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	if data, err := r.read(t.Context()); err != nil || len(data) != 100 {
		t.Fatalf("read %d bytes, %v", len(data), err)
	}
	const size = 4 * windowRoom
	go func() {
		_, err := w.Write(make([]byte, size))
		w.end(err)
	}()
	for read := 0; read < size; {
		// As far as the writer gets by itself.
		w.mu.Lock()
		for w.to-r.next < min(windowRoom, 100+size-r.next) {
			w.changed.Wait()
		}
		w.mu.Unlock()
		data, err := r.read(t.Context())
		if errors.Is(err, errOvertaken) || len(data) == 0 {
			t.Fatalf("after %d bytes: %v", read, err)
		}
		read += len(data)
	}
}
