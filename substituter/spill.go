package substituter

import "os"

// spill is bytes that have left a window and that a client still needs: those
// from from up to to. It is a file of the spool, and shares its bounds.
type spill struct {
	spool    *spool
	file     *os.File // nil until it is needed
	base     int64    // the offset that stands at the file's beginning
	from, to int64
	taken    int64 // bytes of the spool's room
}

// add takes a segment. What cannot be kept is lost for those who still need it.
func (s *spill) add(seg *segment) {
	if seg.offset != s.to || s.file == nil {
		s.from, s.to = seg.offset, seg.offset
	}
	size := int64(len(seg.data))
	if s.file == nil {
		f, err := createUnlinked(s.spool.dir)
		if err != nil {
			return
		}
		s.file, s.base = f, seg.offset
	}
	if !s.spool.room.TryAcquire(size) {
		return
	}
	s.taken += size
	if _, err := s.file.WriteAt(seg.data, seg.offset-s.base); err == nil {
		s.to += size
	}
}

// has reports whether the byte at an offset can be read.
func (s *spill) has(offset int64) bool { return s.from <= offset && offset < s.to }

// close gives everything back.
func (s *spill) close() {
	s.spool.room.Release(s.taken)
	s.taken = 0
	if s.file != nil {
		_ = s.file.Close() // nobody needs what is in it
		s.file = nil
	}
	s.from, s.to = 0, 0
}
