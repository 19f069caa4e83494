package lab

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// homePrefix begins the names of the folders that homes are.
const homePrefix = "nar-p2p-lab-"

// homeDir is the temporary folder in which everything of the process's labs
// lies. Its file "lock" is locked while the process lives, so that others can
// tell what a process that has died left behind.
type homeDir struct {
	dir  string
	lock *os.File

	build    sync.Once
	buildErr error
}

var homes struct {
	mu  sync.Mutex
	own *homeDir
}

// home returns the process's own home. The first call removes what others have
// left behind.
func home() (*homeDir, error) {
	homes.mu.Lock()
	defer homes.mu.Unlock()
	if homes.own == nil {
		sweep()
		h, err := newHome()
		if err != nil {
			return nil, err
		}
		homes.own = h
	}
	return homes.own, nil
}

func newHome() (*homeDir, error) {
	dir, err := os.MkdirTemp("", homePrefix)
	if err != nil {
		return nil, err
	}
	h := &homeDir{dir: dir}
	if h.lock, err = os.Create(filepath.Join(dir, "lock")); err != nil {
		return nil, err
	}
	if err := unix.Flock(int(h.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, os.NewSyscallError("flock", err)
	}
	return h, os.Mkdir(filepath.Join(dir, "netns"), 0o755)
}

// Clean removes the home of the process's labs, with the programs built for
// them.
func Clean() {
	homes.mu.Lock()
	defer homes.mu.Unlock()
	if h := homes.own; h != nil {
		_ = removeStore(h.dir) // Else the next process does it.
		_ = h.lock.Close()
		homes.own = nil
	}
}

// noteNamespace writes down that there is a network namespace of this name. It
// returns the note's path, to be removed when the namespace is.
func (h *homeDir) noteNamespace(name string) string {
	note := filepath.Join(h.dir, "netns", name)
	_ = os.WriteFile(note, nil, 0o644) // Without it the namespace may stay, no more.
	return note
}

// sweep removes the homes of processes that have died, and the network
// namespaces noted there.
func sweep() {
	dirs, err := filepath.Glob(filepath.Join(os.TempDir(), homePrefix+"*"))
	if err != nil {
		panic("lab: " + err.Error()) // The pattern is fine.
	}
	for _, dir := range dirs {
		if !abandoned(dir) {
			continue
		}
		names, err := os.ReadDir(filepath.Join(dir, "netns"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			continue // Of another user.
		}
		for _, name := range names {
			// It may never have been made.
			_ = exec.CommandContext(context.Background(), "ip", "netns", "delete", name.Name()).Run()
		}
		unmountBelow(dir)
		_ = removeStore(dir) // The next one tries again.
	}
}

// unmountBelow unmounts what a process that has died has mounted in its home.
func unmountBelow(dir string) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return
	}
	for line := range strings.Lines(string(text)) {
		// The fifth field is where, see proc(5).
		if fields := strings.Fields(line); len(fields) > 4 && strings.HasPrefix(fields[4], dir+"/") {
			_ = unix.Unmount(fields[4], unix.MNT_DETACH) // Else the folder stays.
		}
	}
}

// newborn is the age in which a home may not have its lock yet.
const newborn = time.Minute

// abandoned reports whether the process of a home has died.
func abandoned(dir string) bool {
	lock, err := os.Open(filepath.Join(dir, "lock"))
	if errors.Is(err, fs.ErrNotExist) {
		stat, err := os.Stat(dir)
		return err == nil && time.Since(stat.ModTime()) > newborn
	}
	if err != nil {
		return false
	}
	defer lock.Close()
	return unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil
}

// removeStore removes a folder in which there may be stores, whose folders are
// read-only.
func removeStore(dir string) error {
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return err
		}
		return os.Chmod(path, 0o700)
	})
	return errors.Join(err, os.RemoveAll(dir))
}
