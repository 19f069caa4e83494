package main

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestTell(t *testing.T) {
	for after, want := range map[time.Duration]string{
		900 * time.Millisecond:  "",
		2500 * time.Millisecond: "\rasking ... 1s \rasking ... 2s \r\x1b[K",
	} {
		synctest.Test(t, func(t *testing.T) {
			var b strings.Builder
			ended := make(chan struct{})
			time.AfterFunc(after, func() { close(ended) })
			tell(&b, "asking", ended)
			if got := b.String(); got != want {
				t.Errorf("after %v: %q, want %q", after, got, want)
			}
		})
	}
}
