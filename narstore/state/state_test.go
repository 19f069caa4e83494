package state_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/nar-p2p/nar-p2p/narstore/state"
)

// childEnv makes the test binary a process that opens the database that it
// names and writes to it until it is killed.
const childEnv = "NAR_P2P_TEST_STATE_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		if err := writeForEver(dir, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// writeForEver writes the keys 0, 1, 2 and so on to the bucket "numbers" and
// prints each one after it was written.
func writeForEver(dir string, out io.Writer) error {
	db, err := state.Open(dir, zap.NewNop())
	if err != nil {
		return err
	}
	b := db.Bucket("numbers")
	for i := 0; ; i++ {
		key := fmt.Append(nil, i)
		if err := b.Put(key, numberValue(key), 0); err != nil {
			return err
		}
		if _, err := fmt.Fprintf(out, "%s\n", key); err != nil {
			return err
		}
	}
}

func numberValue(key []byte) []byte { return bytes.Repeat(key, 1000) }

// startChild runs writeForEver in a process of its own and returns once it has
// written some numbers.
func startChild(t *testing.T, dir string, numbers int) (kill func() (written int)) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(context.Background(), exe)
	cmd.Env = append(os.Environ(), childEnv+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	written := 0
	for written < numbers && lines.Scan() {
		written++
	}
	if written < numbers {
		t.Fatalf("the child wrote %d numbers", written)
	}
	return func() int {
		cmd.Process.Kill()
		for lines.Scan() {
			written++
		}
		cmd.Wait()
		return written
	}
}

func open(t *testing.T, dir string) *state.DB {
	t.Helper()
	db, err := state.Open(dir, zaptest.NewLogger(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// aside returns the folders that were set aside.
func aside(t *testing.T, dir string) []string {
	t.Helper()
	found, err := filepath.Glob(dir + ".damaged-*")
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestReopen(t *testing.T) {
	// What was before: Badger leaks goroutines where it cannot open a database.
	leaks := goleak.IgnoreCurrent()
	dir := filepath.Join(t.TempDir(), "new", "state")
	key := ds.NewKey("key")
	db := open(t, dir)
	if err := db.Bucket("a").Put([]byte("key"), []byte("in a"), 0); err != nil {
		t.Fatal(err)
	}
	if err := db.Datastore("a").Put(t.Context(), key, []byte("in datastore a")); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db = open(t, dir)
	if got, err := db.Bucket("a").Get([]byte("key")); err != nil || string(got) != "in a" {
		t.Errorf("bucket: %q, %v", got, err)
	}
	if got, err := db.Datastore("a").Get(t.Context(), key); err != nil || string(got) != "in datastore a" {
		t.Errorf("datastore: %q, %v", got, err)
	}
	if got := aside(t, dir); len(got) > 0 {
		t.Errorf("set aside: %q", got)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
	goleak.VerifyNone(t, leaks)
}

func TestBucket(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "state"))
	a, ab := db.Bucket("a"), db.Bucket("ab")
	put := func(b *state.Bucket, key, value string) {
		t.Helper()
		if err := b.Put([]byte(key), []byte(value), 0); err != nil {
			t.Fatal(err)
		}
	}
	all := func(b *state.Bucket) (got []string) {
		t.Helper()
		if err := b.Each(t.Context(), func(k, v []byte) error {
			got = append(got, string(k)+"="+string(v))
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return got
	}
	put(a, "2", "two")
	put(a, "1", "one")
	put(a, "3/x", "")
	put(ab, "1", "other")
	put(a, "1", "one again")
	if diff := cmp.Diff([]string{"1=one again", "2=two", "3/x="}, all(a)); diff != "" {
		t.Errorf("a (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"1=other"}, all(ab)); diff != "" {
		t.Errorf("ab (-want +got):\n%s", diff)
	}
	if err := a.Delete([]byte("2")); err != nil {
		t.Error(err)
	}
	if err := a.Delete([]byte("never there")); err != nil {
		t.Error(err)
	}
	if got, err := a.Get([]byte("2")); !errors.Is(err, state.ErrNotFound) {
		t.Errorf("a deleted key: %q, %v", got, err)
	}
	if got, err := ab.Get([]byte("1")); err != nil || string(got) != "other" {
		t.Errorf("Get = %q, %v", got, err)
	}
}

func TestBucketLimits(t *testing.T) {
	b := open(t, filepath.Join(t.TempDir(), "state")).Bucket("a")
	tests := []struct {
		name       string
		key, value int
		ok         bool
	}{
		{"no key", 0, 1, false},
		{"longest", state.MaxKey, state.MaxValue, true},
		{"key too long", state.MaxKey + 1, 1, false},
		{"value too long", 1, state.MaxValue + 1, false},
	}
	for _, tt := range tests {
		key, value := bytes.Repeat([]byte("k"), tt.key), bytes.Repeat([]byte("v"), tt.value)
		if err := b.Put(key, value, 0); (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.name, err)
		}
		if got, err := b.Get(key); tt.ok && (err != nil || !bytes.Equal(got, value)) {
			t.Errorf("%s: read %d bytes, %v", tt.name, len(got), err)
		}
	}
}

func TestTTL(t *testing.T) {
	b := open(t, filepath.Join(t.TempDir(), "state")).Bucket("a")
	if err := b.Put([]byte("short"), []byte("x"), time.Second); err != nil {
		t.Fatal(err)
	}
	if err := b.Put([]byte("long"), []byte("x"), time.Hour); err != nil {
		t.Fatal(err)
	}
	for { // ends by the test's deadline at the latest
		_, err := b.Get([]byte("short"))
		if errors.Is(err, state.ErrNotFound) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	if _, err := b.Get([]byte("long")); err != nil {
		t.Error(err)
	}
}

func TestEachStops(t *testing.T) {
	b := open(t, filepath.Join(t.TempDir(), "state")).Bucket("a")
	for i := range 10 {
		if err := b.Put([]byte{byte(i)}, nil, 0); err != nil {
			t.Fatal(err)
		}
	}
	broken := errors.New("broken")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for _, tt := range []struct {
		name string
		f    func() error
		want error
	}{
		{"error", func() error { return broken }, broken},
		{"context", func() error { cancel(); return nil }, context.Canceled},
	} {
		calls := 0
		err := b.Each(ctx, func(_, _ []byte) error {
			if calls++; calls == 3 {
				return tt.f()
			}
			return nil
		})
		if !errors.Is(err, tt.want) || calls != 3 {
			t.Errorf("%s: %v after %d calls", tt.name, err, calls)
		}
	}
}

// What Each calls may use the bucket, and sees things as they were.
func TestEachChangesBucket(t *testing.T) {
	b := open(t, filepath.Join(t.TempDir(), "state")).Bucket("a")
	for i := range 100 {
		if err := b.Put([]byte{byte(i)}, nil, 0); err != nil {
			t.Fatal(err)
		}
	}
	calls := 0
	err := b.Each(t.Context(), func(key, _ []byte) error {
		calls++
		return errors.Join(b.Delete(key), b.Put([]byte{key[0], 'x'}, nil, 0))
	})
	if err != nil || calls != 100 {
		t.Errorf("%v after %d calls", err, calls)
	}
}

func TestCloseWaitsForCalls(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "state"))
	b := db.Bucket("a")
	if err := b.Put([]byte("key"), []byte("value"), 0); err != nil {
		t.Fatal(err)
	}
	inside, closing, done := make(chan struct{}), make(chan struct{}), make(chan error)
	go func() {
		done <- b.Each(context.Background(), func(_, value []byte) error {
			close(inside)
			<-closing
			// Once Close has begun there are no new calls; this one goes on.
			for {
				if _, err := b.Get([]byte("key")); err != nil {
					break
				}
			}
			if string(value) != "value" {
				return fmt.Errorf("value is %q", value)
			}
			return nil
		})
	}()
	<-inside
	close(closing)
	if err := db.Close(); err != nil {
		t.Error(err)
	}
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Error("Each hangs")
	}
	if _, err := b.Get([]byte("key")); err == nil || errors.Is(err, state.ErrNotFound) {
		t.Errorf("Get after Close = %v", err)
	}
	if err := b.Put([]byte("key"), nil, 0); err == nil {
		t.Error("Put after Close succeeds")
	}
	if err := db.Datastore("a").Put(t.Context(), ds.NewKey("x"), nil); err == nil {
		t.Error("a datastore's Put after Close succeeds")
	}
	if err := db.Close(); err == nil {
		t.Error("a second Close succeeds")
	}
}

func TestDatastore(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "state"))
	other := db.Datastore("other")
	if err := other.Put(t.Context(), ds.NewKey("/a/b"), []byte("other")); err != nil {
		t.Fatal(err)
	}
	if err := db.Bucket("one").Put([]byte("key"), []byte("bucket"), 0); err != nil {
		t.Fatal(err)
	}
	one := db.Datastore("one")
	batch, err := one.Batch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for i := range 100 {
		key := ds.NewKey(fmt.Sprintf("/a/%02d", i))
		want = append(want, key.String())
		if err := batch.Put(t.Context(), key, []byte("one")); err != nil {
			t.Fatal(err)
		}
	}
	if err := batch.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	found, err := one.Query(t.Context(), query.Query{Prefix: "/a", KeysOnly: true, Orders: []query.Order{query.OrderByKey{}}})
	if err != nil {
		t.Fatal(err)
	}
	entries, err := found.Rest()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Key)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if err := one.Close(); err != nil {
		t.Error(err)
	}
	if got, err := other.Get(t.Context(), ds.NewKey("/a/b")); err != nil || string(got) != "other" {
		t.Errorf("another datastore: %q, %v", got, err)
	}
	if got, err := db.Bucket("one").Get([]byte("key")); err != nil || string(got) != "bucket" {
		t.Errorf("the bucket of this name: %q, %v", got, err)
	}
}

func TestKilled(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	for round := range 3 {
		written := startChild(t, dir, 3000*(round+1))()
		db := open(t, dir)
		for i := range written {
			key := fmt.Append(nil, i)
			if got, err := db.Bucket("numbers").Get(key); err != nil || !bytes.Equal(got, numberValue(key)) {
				t.Fatalf("round %d: number %d of %d: %d bytes, %v", round, i, written, len(got), err)
			}
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if got := aside(t, dir); len(got) > 0 {
		t.Errorf("set aside: %q", got)
	}
}

func TestInUseByAnotherProcess(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	kill := startChild(t, dir, 10)
	_, err := state.Open(dir, zaptest.NewLogger(t))
	if err == nil || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("Open = %v", err)
	}
	written := kill()
	db := open(t, dir)
	if _, err := db.Bucket("numbers").Get(fmt.Append(nil, written-1)); err != nil {
		t.Errorf("after the other process has ended: %v", err)
	}
	if got := aside(t, dir); len(got) > 0 {
		t.Errorf("set aside: %q", got)
	}
}
