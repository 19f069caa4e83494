// Package dircache is a store that is a binary cache in a directory, as
// `nix copy --to file://DIR` writes it: <hash part>.narinfo files, and the NARs
// under the URLs that these give. A node that only serves needs no Nix.
//
// NARs that are not compressed are read where they lie, at no cost. A
// compressed one can only be read from the start, so when it is first opened
// it is decompressed into a scratch file, verified on the way, and kept there
// while there is room. That takes a core about 20 s for 1 GiB of xz, 2 s for
// zstd. For a cache that serves much, `?compression=none` is the better way.
//
// Nothing in the directory is trusted: a URL cannot lead out of it, and only
// regular files are read.
package dircache

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/internal/decompress"
	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

const (
	defaultPoll = time.Second
	// defaultScratchLimit holds the closure of most programs, and leaves most
	// disks alone.
	defaultScratchLimit = 4 << 30
)

// Config says where a cache is.
type Config struct {
	// Dir is the directory that holds the narinfos.
	Dir string
	// ScratchDir is for decompressed NARs; "" is the system's folder for
	// temporary files. Files there have no names and vanish with the process.
	ScratchDir string
	// ScratchLimit is for all of them together, in bytes; 0 is 4 GiB. A
	// compressed NAR that is larger cannot be opened.
	ScratchLimit int64
	// Poll is how often Follow looks for changes; 0 is a second.
	Poll time.Duration
}

// Store is a binary cache. It implements narstore.Store.
type Store struct {
	cfg     Config
	log     *zap.Logger
	scratch *scratch
}

var _ narstore.Store = (*Store)(nil)

// errDamaged says that a NAR is not what its record says.
var errDamaged = errors.New("NAR is damaged")

// Open returns the cache in a directory, which must exist.
func Open(cfg Config, log *zap.Logger) (*Store, error) {
	if cfg.ScratchLimit == 0 {
		cfg.ScratchLimit = defaultScratchLimit
	}
	if cfg.Poll == 0 {
		cfg.Poll = defaultPoll
	}
	s := &Store{cfg: cfg, log: log.Named("dircache"), scratch: newScratch(cfg.ScratchDir, cfg.ScratchLimit)}
	if err := s.in(func(*os.Root) error { return nil }); err != nil {
		return nil, fmt.Errorf("dircache: open: %w", err)
	}
	return s, nil
}

// Close gives up the decompressed NARs. Those that are open stay so.
func (s *Store) Close() error {
	s.scratch.close()
	return nil
}

// in runs f in the directory, which is opened each time: it may have been
// replaced.
func (s *Store) in(f func(*os.Root) error) error {
	root, err := os.OpenRoot(s.cfg.Dir)
	if err != nil {
		return err
	}
	defer root.Close()
	return f(root)
}

// Info implements narstore.Store.
func (s *Store) Info(_ context.Context, part nix.HashPart) (*narstore.PathInfo, error) {
	var rec *narinfo.Info
	err := s.in(func(root *os.Root) (err error) {
		rec, err = readRecord(root, part)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("dircache: %s: %w", part, err)
	}
	return pathInfo(rec), nil
}

// readRecord reads the narinfo of a path.
func readRecord(root *os.Root, part nix.HashPart) (*narinfo.Info, error) {
	f, _, err := openRegular(root, part.String()+narinfoSuffix)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, narinfo.MaxSize+1))
	if err != nil {
		return nil, err
	}
	rec, err := narinfo.Parse(data)
	if err != nil {
		return nil, err
	}
	if rec.StorePath.HashPart() != part {
		return nil, fmt.Errorf("narinfo is of %s", rec.StorePath)
	}
	return rec, nil
}

// openRegular opens a regular file in the directory, or returns an error that
// is narstore.ErrNotFound.
func openRegular(root *os.Root, name string) (*os.File, int64, error) {
	// Without O_NONBLOCK a named pipe would hold us up.
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, narstore.ErrNotFound
	}
	if err != nil {
		return nil, 0, err
	}
	stat, err := f.Stat()
	if err == nil && !stat.Mode().IsRegular() {
		err = fmt.Errorf("%.200s is not a regular file", name)
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, stat.Size(), nil
}

func pathInfo(rec *narinfo.Info) *narstore.PathInfo {
	return &narstore.PathInfo{
		Path:       rec.StorePath,
		NARHash:    rec.NARHash,
		NARSize:    rec.NARSize,
		References: rec.References,
		Deriver:    rec.Deriver,
		Signatures: rec.Signatures,
		CA:         rec.CA,
	}
}

// Open implements narstore.Store. The hash of a NAR is checked here only where
// it is decompressed.
func (s *Store) Open(ctx context.Context, info *narstore.PathInfo) (narstore.NAR, error) {
	part := info.Path.HashPart()
	var nar narstore.NAR
	err := s.in(func(root *os.Root) error {
		rec, err := readRecord(root, part)
		if err != nil {
			return err
		}
		if rec.StorePath != info.Path || rec.NARHash != info.NARHash || rec.NARSize != info.NARSize {
			return fmt.Errorf("it has been replaced by another build: %w", narstore.ErrNotFound)
		}
		nar, err = s.openNAR(ctx, root, rec)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("dircache: %s: %w", info.Path, err)
	}
	return nar, nil
}

func (s *Store) openNAR(ctx context.Context, root *os.Root, rec *narinfo.Info) (narstore.NAR, error) {
	if rec.Compression == decompress.None {
		file, err := openFile(root, rec, rec.NARSize)
		if err != nil {
			return nil, err
		}
		return &plain{File: file, size: rec.NARSize}, nil
	}
	return s.scratch.open(ctx, rec.NARHash, rec.NARSize, func() (content io.ReadCloser, err error) {
		// Not by root, which is closed when this caller has given up.
		err = s.in(func(root *os.Root) error {
			file, err := openFile(root, rec, rec.FileSize)
			if err != nil {
				return err
			}
			content, err = plainOf(file, rec)
			return err
		})
		return content, err
	})
}

// decompressed is the content of a compressed file.
type decompressed struct {
	io.ReadCloser

	file io.Closer
}

func (d decompressed) Close() error { return errors.Join(d.ReadCloser.Close(), d.file.Close()) }

// plainOf returns the NAR in a compressed file, which is closed with it or in
// case of an error.
func plainOf(file io.ReadCloser, rec *narinfo.Info) (io.ReadCloser, error) {
	plain, err := decompress.NewReader(rec.Compression, bufio.NewReader(file))
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return decompressed{plain, file}, nil
}

// openFile opens the file of a NAR, which must have that size, or any where size
// is 0.
func openFile(root *os.Root, rec *narinfo.Info, size int64) (*os.File, error) {
	if !filepath.IsLocal(rec.URL) {
		return nil, fmt.Errorf("URL %.200q leads out of the cache", rec.URL)
	}
	file, got, err := openRegular(root, rec.URL)
	if err != nil {
		return nil, err
	}
	if size != 0 && got != size {
		err := fmt.Errorf("%w: %.200s has %d bytes, not the %d of the record", errDamaged, rec.URL, got, size)
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// plain is a NAR that lies in the cache as it is.
type plain struct {
	*os.File

	size int64
}

func (p *plain) Size() int64 { return p.size }
