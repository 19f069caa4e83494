package allow_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/nar-p2p/nar-p2p/p2p/allow"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	anna = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"
	ben  = "12D3KooWGRUaRbRxHWMCVEHAF8MHNJWwJrXMZ3y1TMEFxyq6sjZ7"
	cleo = "QmaCpDMGvV2BGHeYERUEnRQAwe3N8SzbUtfsmvsqQLuvuJ"
)

func id(t *testing.T, text string) peer.ID {
	t.Helper()
	p, err := peer.Decode(text)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// file writes a list, in place.
func file(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// has wants these of anna, ben and cleo on the list and no others.
func has(t *testing.T, l *allow.List, want ...string) {
	t.Helper()
	for _, text := range []string{anna, ben, cleo} {
		wanted := strings.Contains(strings.Join(want, " "), text)
		if got := l.Has(id(t, text)); got != wanted {
			t.Errorf("Has(%s) = %v, want %v", text, got, wanted)
		}
	}
	if l.Len() != len(want) {
		t.Errorf("Len() = %d, want %d", l.Len(), len(want))
	}
}

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	path, empty := filepath.Join(dir, "allow"), filepath.Join(dir, "empty")
	file(t, empty, "# nobody yet\n")
	file(t, path, "# the team\n\n"+anna+" # anna's laptop\r\n\t"+cleo+"\n"+anna)
	for _, tt := range []struct {
		name   string
		path   string
		fixed  []peer.ID
		exists bool
		want   []string
	}{
		{"none", "", nil, false, nil},
		{"fixed", "", []peer.ID{id(t, ben)}, true, []string{ben}},
		{"file", path, nil, true, []string{anna, cleo}},
		{"both", path, []peer.ID{id(t, ben), id(t, anna)}, true, []string{anna, ben, cleo}},
		{"nobody", empty, nil, true, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, err := allow.Open(tt.path, tt.fixed, zap.NewNop())
			if err != nil {
				t.Fatal(err)
			}
			if l.Exists() != tt.exists {
				t.Errorf("Exists() = %v, want %v", l.Exists(), tt.exists)
			}
			has(t, l, tt.want...)
		})
	}
}

func TestOpenNamesWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	for name, tt := range map[string]struct{ text, want string }{
		"word":      {anna + "\n\nanna\n", `:3: "anna" is not a peer ID`},
		"two":       {anna + " " + ben, ":1: "},
		"cut":       {anna[:30], ":1: "},
		"a CID":     {"bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku", ":1: "},
		"long line": {anna + "\n" + strings.Repeat("1", 1<<20) + "\n", ":2: "},
		"too large": {strings.Repeat("#\n", 4<<20+1), "larger than"},
	} {
		path := filepath.Join(dir, name)
		file(t, path, tt.text)
		_, err := allow.Open(path, nil, zap.NewNop())
		if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want an error with the path and %q", name, err, tt.want)
		} else if len(err.Error()) > 400 {
			t.Errorf("%s: an error of %d bytes", name, len(err.Error()))
		}
	}
	for _, path := range []string{filepath.Join(dir, "missing"), dir} {
		if _, err := allow.Open(path, nil, zap.NewNop()); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("Open(%s) = %v, want an error that names it", path, err)
		}
	}
}

// A minute of the bubble's time is plenty for Run to see a change.
func TestRunFollowsTheFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "allow")
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zapcore.InfoLevel)
		file(t, path, anna)
		l, err := allow.Open(path, []peer.ID{id(t, cleo)}, zap.New(core))
		if err != nil {
			t.Fatal(err)
		}
		changes := 0
		go l.Run(t.Context(), func() { changes++ })
		time.Sleep(500 * time.Millisecond) // Never in the same instant as Run looks.
		after := func(what string, wantChanges int, want ...string) {
			t.Helper()
			time.Sleep(time.Minute)
			synctest.Wait()
			t.Log(what)
			has(t, l, append(want, cleo)...)
			if changes != wantChanges {
				t.Errorf("%s: %d changes, want %d", what, changes, wantChanges)
			}
		}
		after("nothing has happened", 0, anna)

		file(t, path, anna+"\n"+ben)
		after("one more", 1, anna, ben)

		// On NixOS it is a link to a file of another time that is replaced.
		target := filepath.Join(dir, "target")
		file(t, target, ben)
		if err := os.Chtimes(target, time.Unix(1, 0), time.Unix(1, 0)); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, filepath.Join(dir, "new")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "new"), path); err != nil {
			t.Fatal(err)
		}
		after("replaced by a link", 2, ben)

		file(t, path, ben+"\nbob\n")
		after("a bad line", 2, ben)
		errors := logs.FilterLevelExact(zapcore.ErrorLevel).All()
		if len(errors) != 1 || !strings.Contains(errors[0].ContextMap()["error"].(string), path+":2: \"bob\"") {
			t.Errorf("logged %v, want one error that names file and line", errors)
		}

		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		after("removed", 2, ben)
		if n := logs.FilterLevelExact(zapcore.ErrorLevel).Len(); n != 2 {
			t.Errorf("logged %d errors, want one more", n)
		}

		file(t, path, "")
		after("nobody", 3)
	})
}

// An editor may write a file in pieces. What is there in between must not
// throw anybody out.
func TestRunWaitsUntilTheFileIsAtRest(t *testing.T) {
	path := filepath.Join(t.TempDir(), "allow")
	synctest.Test(t, func(t *testing.T) {
		file(t, path, anna+"\n"+ben)
		l, err := allow.Open(path, nil, zap.NewNop())
		if err != nil {
			t.Fatal(err)
		}
		go l.Run(t.Context(), func() { has(t, l, anna, ben, cleo) })
		// Never in the same instant as Run looks.
		time.Sleep(time.Minute + 500*time.Millisecond)
		for _, text := range []string{"", anna + "\n", anna + "\n" + ben + "\n" + cleo} {
			file(t, path, text)
			time.Sleep(1900 * time.Millisecond)
			synctest.Wait()
			has(t, l, anna, ben)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		has(t, l, anna, ben, cleo)
	})
}
