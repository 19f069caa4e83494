package main

import (
	"fmt"
	"strings"
	"testing"
)

func TestCutter(t *testing.T) {
	var b strings.Builder
	c := &cutter{w: &b, columns: 5}
	for _, text := range []string{"1234", "5678\n", "äöü\n1234", "5", "\n"} {
		if n, err := fmt.Fprint(c, text); err != nil || n != len(text) {
			t.Errorf("%q: %d, %v", text, n, err)
		}
	}
	if got, want := b.String(), "1234…\näöü\n1234…\n"; got != want {
		t.Errorf("%q is left, want %q", got, want)
	}
}
