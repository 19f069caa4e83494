package state

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"syscall"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	"github.com/dgraph-io/badger/v4/pb"
	"github.com/dgraph-io/badger/v4/table"
	"github.com/dgraph-io/badger/v4/y"
	"github.com/dgraph-io/ristretto/v2/z"
	badger4 "github.com/ipfs/go-ds-badger4"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"
)

// maxAside is how many damaged folders are kept for whoever wants to look.
const maxAside = 2

// acquire locks the database in dir for this process. The lock lies beside the
// folder, so that the folder can be renamed under it, and ends with the process.
func acquire(dir string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(dir+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	switch {
	case errors.Is(err, syscall.EWOULDBLOCK):
		err = fmt.Errorf("database %s is in use by another process", dir)
	case err != nil:
		err = fmt.Errorf("locking database %s: %w", dir, err)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// openOrRenew opens the database in dir, or sets it aside and begins a new one: then
// it returns where the old one is.
// Where that is not possible either, the database is not to blame: the old
// folder is put back and the error returned.
func openOrRenew(dir string, log *zap.Logger) (store *badger4.Datastore, aside string, err error) {
	store, damage := openSound(dir)
	if damage == nil {
		return store, "", nil
	}
	aside = dir + ".damaged-" + time.Now().UTC().Format("20060102T150405.000000000Z")
	if err := os.Rename(dir, aside); err != nil {
		return nil, "", errors.Join(damage, err)
	}
	store, err = openSound(dir)
	if err != nil {
		return nil, "", errors.Join(err, os.RemoveAll(dir), os.Rename(aside, dir))
	}
	log.Warn("the database was damaged and has been set aside; starting with an empty one. "+
		"Nothing is lost for good: the node will look everything up again",
		zap.String("setAside", aside), zap.Error(damage))
	if err := dropOldest(dir); err != nil {
		log.Warn("older damaged databases remain", zap.Error(err))
	}
	return store, aside, nil
}

// dropOldest removes all but the latest maxAside folders that were set aside.
func dropOldest(dir string) error {
	aside, err := filepath.Glob(escape(dir) + ".damaged-*")
	if err != nil {
		return err
	}
	slices.Sort(aside) // by time, as their names have it
	var errs []error
	for _, old := range aside[:max(0, len(aside)-maxAside)] {
		errs = append(errs, os.RemoveAll(old))
	}
	return errors.Join(errs...)
}

// escape writes a path as a pattern that matches it alone.
func escape(path string) string {
	var pattern []byte
	for i := range len(path) {
		switch path[i] {
		case '*', '?', '[', '\\':
			pattern = append(pattern, '\\')
		}
		pattern = append(pattern, path[i])
	}
	return string(pattern)
}

// recovered turns a panic into an error: Badger panics on some damage.
func recovered(err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("panic: %.1000v", r)
	}
}

// verify checks every table of the database in dir. fresh says that there is no
// database yet. Badger loads tables on goroutines of its own, where a panic
// cannot be caught, and calls log.Fatal on a bad footer: so this comes first.
func verify(dir string) (fresh bool, err error) {
	defer recovered(&err)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0 {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	manifest, err := os.Open(filepath.Join(dir, badger.ManifestFilename))
	if err != nil {
		return false, err
	}
	defer manifest.Close()
	// Tables that the manifest does not name are leftovers of a crash.
	listed, _, err := badger.ReplayManifestFile(manifest, 0, tuned())
	if err != nil {
		return false, fmt.Errorf("manifest: %w", err)
	}
	for id, info := range listed.Tables {
		path := table.NewFilename(id, dir)
		if err := verifyFooter(path); err != nil {
			return false, fmt.Errorf("table %s: %w", path, err)
		}
		if err := verifyTable(path, info.Compression); err != nil {
			return false, fmt.Errorf("table %s: %w", path, err)
		}
	}
	return false, nil
}

// verifyTable opens a table as Badger does and verifies its blocks.
func verifyTable(path string, compression options.CompressionType) error {
	// A page that the disk cannot read is a fault of the mapped memory: a panic.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	file, err := z.OpenMmapFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	o := tuned()
	t, err := table.OpenTable(file, table.Options{
		BlockSize:   o.BlockSize,
		Compression: compression,
		ChkMode:     options.OnTableAndBlockRead,
	})
	if err != nil {
		return err
	}
	return t.Close(-1)
}

// verifyFooter checks the end of a table, on which Badger relies blindly: index,
// length of the index, checksum of the index, length of the checksum, the
// lengths being four bytes each in big endian.
func verifyFooter(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	footer := io.NewSectionReader(f, 0, info.Size())
	sum, at, err := readBackwards(footer, info.Size())
	if err != nil {
		return fmt.Errorf("checksum: %w", err)
	}
	index, _, err := readBackwards(footer, at)
	if err != nil {
		return fmt.Errorf("index: %w", err)
	}
	var expected pb.Checksum
	if err := proto.Unmarshal(sum, &expected); err != nil {
		return fmt.Errorf("checksum: %w", err)
	}
	if len(index) == 0 || expected.GetAlgo() != pb.Checksum_CRC32C {
		return errors.New("index or checksum is unknown")
	}
	return y.VerifyChecksum(index, &expected)
}

// readBackwards returns the bytes whose length is written in the four bytes
// before end, and where they begin.
func readBackwards(r io.ReaderAt, end int64) (b []byte, at int64, err error) {
	var length [4]byte
	if end < int64(len(length)) {
		return nil, 0, io.ErrUnexpectedEOF
	}
	end -= int64(len(length))
	if _, err := r.ReadAt(length[:], end); err != nil {
		return nil, 0, err
	}
	n := int64(binary.BigEndian.Uint32(length[:]))
	if n > end {
		return nil, 0, fmt.Errorf("length %d is above %d", n, end)
	}
	b = make([]byte, n)
	if _, err := r.ReadAt(b, end-n); err != nil {
		return nil, 0, err
	}
	return b, end - n, nil
}
