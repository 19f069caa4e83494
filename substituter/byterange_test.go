package substituter

import (
	"errors"
	"fmt"
	"testing"
)

func FuzzParseRange(f *testing.F) {
	for _, header := range []string{"bytes=0-", "bytes=5-9", "bytes=-3", "bytes=1-2,3-4", "bytes=9-5", "x=1-2", "bytes=99999999999999999999-"} {
		f.Add(header, int64(10))
	}
	f.Fuzz(func(t *testing.T, header string, size int64) {
		if size <= 0 {
			return
		}
		want, ok, err := parseRange(header, size)
		if err != nil {
			if !errors.Is(err, errUnsatisfiable) || ok {
				t.Errorf("parseRange(%q, %d) = %v, %v", header, size, ok, err)
			}
			return
		}
		if want.From < 0 || want.From >= want.To || want.To > size {
			t.Fatalf("parseRange(%q, %d) = %v", header, size, want)
		}
		again, _, err := parseRange(fmt.Sprintf("bytes=%d-%d", want.From, want.To-1), size)
		if err != nil || again != want {
			t.Errorf("parseRange(%q, %d) = %v, and written out %v, %v", header, size, want, again, err)
		}
	})
}
