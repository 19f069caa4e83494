package e2e

import (
	"io"
	"net"
	"strings"
	"testing"
)

// A program takes all the connections that the daemon allows, and says no more on
// each than half a header. Nix is served all the same.
func TestNixIsServedAmongSilentConnections(t *testing.T) {
	const many = 2_200 // more than are allowed
	m := newTeam(t, 5, 1<<20)
	consumer, store := m.consumer()
	address := strings.TrimPrefix(consumer.URL(), "http://")
	for range many {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		_, _ = io.WriteString(conn, "GET /nix-cache-info HTTP/1.1\r\nHost: localhost\r\n") // It may be closed already.
	}
	if err := store.Realise(m.root()); err != nil {
		t.Fatal(err)
	}
	m.checkSubstituted(t, store)
}
