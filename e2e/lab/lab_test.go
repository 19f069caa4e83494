package lab

import (
	"os"
	"strings"
	"testing"
)

func TestMain(m *testing.M) { os.Exit(Main(m)) }

func TestSegmentConnectsItsHostsAndNothingElse(t *testing.T) {
	l := New(t)
	s := l.Segment()
	a, b := s.Host("a"), s.Host("b")
	out, err := a.Command(l.Context(), "ip", "route", "get", b.Addr).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "dev eth0") {
		t.Errorf("route from a to b: %v\n%s", err, out)
	}
	if out, err := a.Command(l.Context(), "ip", "-o", "link").CombinedOutput(); err != nil || strings.Count(string(out), "\n") != 2 {
		t.Errorf("a has other links than lo and eth0: %v\n%s", err, out)
	}
}
