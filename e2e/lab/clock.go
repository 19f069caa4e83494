package lab

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Clock is the clock on the wall as one process sees it. What it sees of the one that
// only goes on, by which timers go, is not touched, nor is anything that other
// processes see.
//
// A Go program asks the kernel for neither, but the code that the kernel has mapped
// into each process (vdso(7)). Its pages may be written to like those of a program
// under a debugger, whereupon the process has a copy of its own.
type Clock struct {
	lab *Lab
	pid int
	// at is where the process has the number of nanoseconds by which it is wrong.
	at int64
}

// clockCode takes the place of __vdso_clock_gettime: it asks the kernel, and where
// that was for CLOCK_REALTIME, which is 0, it adds the number behind it to the seconds.
var clockCode = []byte{
	0xb8, 0xe4, 0x00, 0x00, 0x00, // mov $228, %eax, which is clock_gettime
	0x0f, 0x05, // syscall
	0x85, 0xff, // test %edi, %edi
	0x75, 0x0a, // jne to the ret
	0x48, 0x8b, 0x15, 0x06, 0x00, 0x00, 0x00, // mov 6(%rip), %rdx
	0x48, 0x01, 0x16, // add %rdx, (%rsi)
	0xc3,       // ret
	0x90, 0x90, // nop
	0, 0, 0, 0, 0, 0, 0, 0, // the seconds
}

// Clock makes the daemon's clock one that can be set. It lasts until it is started
// again.
func (d *Daemon) Clock() *Clock {
	d.lab.t.Helper()
	c, err := takeClock(d.PID())
	if err != nil {
		d.lab.t.Fatalf("lab: the clock of %s: %v", d.name, err)
	}
	c.lab = d.lab
	return c
}

func takeClock(pid int) (*Clock, error) {
	if runtime.GOARCH != "amd64" {
		return nil, errors.New("it can be set on amd64 alone")
	}
	start, code, err := vdso(pid)
	if err != nil {
		return nil, err
	}
	image, err := elf.NewFile(bytes.NewReader(code))
	if err != nil {
		return nil, err
	}
	symbols, err := image.DynamicSymbols()
	if err != nil {
		return nil, err
	}
	for _, s := range symbols {
		if s.Name != "__vdso_clock_gettime" {
			continue
		}
		if s.Size < uint64(len(clockCode)) {
			return nil, fmt.Errorf("%s has %d bytes only", s.Name, s.Size)
		}
		at := start + int64(s.Value)
		err := whileStopped(pid, at, at+int64(len(clockCode)), func() error { return poke(pid, at, clockCode) })
		return &Clock{pid: pid, at: at + int64(len(clockCode)) - 8}, err
	}
	return nil, errors.New("no __vdso_clock_gettime")
}

// Set makes the clock wrong by so much, in whole seconds; 0 sets it right.
func (c *Clock) Set(wrong time.Duration) {
	c.lab.t.Helper()
	seconds := binary.LittleEndian.AppendUint64(nil, uint64(int64(wrong/time.Second)))
	if err := whileStopped(c.pid, c.at, c.at+8, func() error { return poke(c.pid, c.at, seconds) }); err != nil {
		c.lab.t.Fatalf("lab: set the clock: %v", err)
	}
}

// vdso returns where a process has the kernel's code, and the code.
func vdso(pid int) (start int64, code []byte, err error) {
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return 0, nil, err
	}
	for line := range strings.Lines(string(maps)) {
		if !strings.HasSuffix(strings.TrimSpace(line), "[vdso]") {
			continue
		}
		var end int64
		if _, err := fmt.Sscanf(line, "%x-%x", &start, &end); err != nil {
			return 0, nil, err
		}
		code = make([]byte, end-start)
		memory, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
		if err != nil {
			return 0, nil, err
		}
		_, err = memory.ReadAt(code, start)
		return start, code, errors.Join(err, memory.Close())
	}
	return 0, nil, errors.New("no [vdso]")
}

// poke writes to the memory of a process.
func poke(pid int, at int64, data []byte) error {
	memory, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", pid), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = memory.WriteAt(data, at)
	return errors.Join(err, memory.Close())
}

// whileStopped calls f while a process stands still, with none of its threads between
// two addresses.
func whileStopped(pid int, from, to int64, f func() error) (err error) {
	for range 100 {
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			return err
		}
		var clear bool
		if clear, err = clearOf(pid, from, to); clear && err == nil {
			err = f()
		}
		err = errors.Join(err, syscall.Kill(pid, syscall.SIGCONT))
		if clear || err != nil {
			return err
		}
	}
	return errors.New("it is always busy with the time")
}

// clearOf waits until all threads of a process have stopped, and reports whether none
// is between two addresses.
func clearOf(pid int, from, to int64) (bool, error) {
	deadline := time.Now().Add(Patience)
	for {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
		if err != nil || len(threads) == 0 {
			return false, errors.Join(err, errors.New("it has ended"))
		}
		stopped, clear := true, true
		for _, thread := range threads {
			// The last of its words is the program counter, see proc_pid_syscall(5).
			text, err := os.ReadFile(thread + "/syscall")
			words := strings.Fields(string(text))
			if err != nil || len(words) < 2 {
				stopped = false
				break
			}
			counter, err := strconv.ParseInt(words[len(words)-1], 0, 64)
			if err != nil {
				return false, err
			}
			clear = clear && (counter < from || counter >= to)
		}
		if stopped {
			return clear, nil
		}
		if time.Now().After(deadline) {
			return false, errors.New("it does not stand still")
		}
		time.Sleep(time.Millisecond)
	}
}
