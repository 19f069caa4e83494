package decompress

import (
	"encoding/binary"
	"errors"
	"io"
	"math/bits"
)

// LZMA2 is decoded here because the NARs of cache.nixos.org are xz, and no package
// to be had comes near liblzma, with which Nix itself would decode them: the
// fastest one takes twice as long, so that a line of 50 Mbit/s already is faster
// than it. The format is that of the LZMA SDK (lzma-specification.txt).

const (
	lzmaStates    = 12
	lzmaPosStates = 16
	lzmaHalf      = 1 << 10 // of a probability
	lzmaMove      = 5
	// lzmaTowards makes a probability move towards 1 as far as it would else move
	// towards 0.
	lzmaTowards = 2*lzmaHalf - (1<<lzmaMove - 1)
	lzmaTop     = 1 << 24
	// lzmaInput is more than a chunk's data can be, with what a symbol could read
	// behind its end. A power of two spares checks of bounds.
	lzmaInput = 1 << 17
	lzmaMask  = lzmaInput - 1
)

var errLZMA = errors.New("xz: malformed LZMA2 data")

// lengthCoder is the model of match lengths.
type lengthCoder struct {
	choice, choice2 uint16
	low, mid        [lzmaPosStates][8]uint16
	high            [256]uint16
}

// lzmaModel is all probabilities that adapt.
type lzmaModel struct {
	isMatch, isRep0Long              [lzmaStates << 4]uint16
	isRep, isRepG0, isRepG1, isRepG2 [lzmaStates]uint16
	slots                            [4][64]uint16
	special                          [128]uint16
	align                            [16]uint16
	length, repLength                lengthCoder
	literals                         [0x300 << 4]uint16
}

// lzma2Reader decodes one LZMA2 stream.
type lzma2Reader struct {
	in  io.Reader
	err error

	// dict is a ring of the bytes decoded last; next is where the next goes, and
	// round is true once the ring is full.
	dict  []byte
	next  int
	round bool
	total uint64 // bytes since the dictionary was reset

	// What is left of the chunk, in plain bytes; stored ones are copied from in.
	left   int
	stored bool

	needDict, needProps, needState bool
	lc, lp, pb                     uint32

	data                   [lzmaInput]byte
	pos, end               uint32 // in data
	rng, code              uint32
	state                  uint32
	rep0, rep1, rep2, rep3 uint32
	pending                int // bytes of a match that had no room
	model                  lzmaModel
}

func newLZMA2Reader(in io.Reader, dict int) *lzma2Reader {
	return &lzma2Reader{in: in, dict: make([]byte, dict), needDict: true, needProps: true, needState: true}
}

// Read implements io.Reader.
func (z *lzma2Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for z.err == nil && z.left == 0 {
		z.err = z.chunk()
	}
	if z.err != nil {
		return 0, z.err
	}
	from := z.next
	limit := from + min(z.left, len(p), len(z.dict)-from)
	if z.stored {
		n, err := io.ReadFull(z.in, z.dict[from:limit])
		z.next, z.total = from+n, z.total+uint64(n)
		z.err = noEOF(err)
	} else if !z.decode(limit) {
		z.err = errLZMA
	}
	n := copy(p, z.dict[from:z.next])
	z.left -= n
	if z.next == len(z.dict) {
		z.next, z.round = 0, true
	}
	if z.left == 0 && !z.stored && (z.pending > 0 || z.pos > z.end) {
		z.err = errLZMA
	}
	if n > 0 {
		return n, nil
	}
	return 0, z.err
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// chunk reads a chunk's header, and all of its data if it is compressed. io.EOF
// is the stream's end.
func (z *lzma2Reader) chunk() error {
	var h [6]byte
	if _, err := io.ReadFull(z.in, h[:1]); err != nil {
		return noEOF(err)
	}
	control := h[0]
	switch {
	case control == 0:
		return io.EOF
	case control < 0x80 && control > 2:
		return errLZMA
	case control == 1 || control >= 0xe0:
		z.needDict = false
		z.total = 0
	case z.needDict:
		return errLZMA
	}
	rest := h[1:3]
	if control >= 0xc0 {
		rest = h[1:6]
	} else if control >= 0x80 {
		rest = h[1:5]
	}
	if _, err := io.ReadFull(z.in, rest); err != nil {
		return noEOF(err)
	}
	z.left = int(binary.BigEndian.Uint16(rest)) + 1
	if z.stored = control < 0x80; z.stored {
		return nil
	}
	z.left += int(control&0x1f) << 16
	if control >= 0xc0 {
		if !z.properties(uint32(rest[4])) {
			return errLZMA
		}
		z.needProps = false
	}
	if control >= 0xa0 {
		z.reset()
		z.needState = false
	}
	if z.needProps || z.needState {
		return errLZMA
	}
	return z.fill(int(binary.BigEndian.Uint16(rest[2:])) + 1)
}

// properties takes how many bits of its surroundings a model depends on.
func (z *lzma2Reader) properties(b uint32) bool {
	if b >= 9*5*5 {
		return false
	}
	z.lc, z.lp, z.pb = b%9, b/9%5, b/45
	return z.lc+z.lp <= 4
}

func (z *lzma2Reader) reset() {
	z.state, z.rep0, z.rep1, z.rep2, z.rep3 = 0, 0, 0, 0, 0
	m := &z.model
	half := func(probs []uint16) {
		for i := range probs {
			probs[i] = lzmaHalf
		}
	}
	for _, probs := range [][]uint16{
		m.isMatch[:], m.isRep0Long[:], m.isRep[:], m.isRepG0[:], m.isRepG1[:], m.isRepG2[:],
		m.special[:], m.align[:], m.literals[:0x300<<(z.lc+z.lp)],
	} {
		half(probs)
	}
	for i := range m.slots {
		half(m.slots[i][:])
	}
	for _, l := range []*lengthCoder{&m.length, &m.repLength} {
		l.choice, l.choice2 = lzmaHalf, lzmaHalf
		half(l.high[:])
		for i := range l.low {
			half(l.low[i][:])
			half(l.mid[i][:])
		}
	}
}

// fill reads a chunk's data and starts the range decoder.
func (z *lzma2Reader) fill(size int) error {
	if size < 5 {
		return errLZMA
	}
	if _, err := io.ReadFull(z.in, z.data[:size]); err != nil {
		return noEOF(err)
	}
	if z.data[0] != 0 {
		return errLZMA
	}
	z.rng, z.code = 1<<32-1, binary.BigEndian.Uint32(z.data[1:])
	z.pos, z.end = 5, uint32(size)
	return nil
}

// bit decodes one bit, without a branch: which one it is cannot be foretold.
// The range decoder's state goes in and out by value, so that it can stay in
// registers.
func bit(prob *uint16, rng, code uint32) (b, newRng, newCode uint32) {
	p := uint32(*prob)
	bound := (rng >> 11) * p
	diff, zero := bits.Sub32(code, bound, 0) // zero is 1 if the bit is 0
	mask := -zero
	rng -= bound
	rng += mask & (bound - rng)
	*prob = uint16(p - uint32(int32(p-mask&lzmaTowards)>>lzmaMove))
	return 1 - zero, rng, diff + (bound & mask)
}

// tree decodes so many bits, the highest first, each with a probability that
// depends on those before.
func (z *lzma2Reader) tree(probs []uint16, n int) uint32 {
	rng, code, pos := z.rng, z.code, z.pos
	symbol := uint32(1)
	for range n {
		if rng < lzmaTop {
			rng, code = rng<<8, code<<8|uint32(z.data[pos&lzmaMask])
			pos++
		}
		p := uint32(probs[symbol])
		bound := (rng >> 11) * p
		diff, zero := bits.Sub32(code, bound, 0)
		mask := -zero
		probs[symbol] = uint16(p - uint32(int32(p-mask&lzmaTowards)>>lzmaMove))
		rng -= bound
		rng += mask & (bound - rng)
		code = diff + bound&mask
		symbol = symbol<<1 + 1 - zero
	}
	z.rng, z.code, z.pos = rng, code, pos
	return symbol - 1<<n
}

// reverse is tree with the lowest bit first.
func (z *lzma2Reader) reverse(probs []uint16, n int) (value uint32) {
	symbol := uint32(1)
	for i := range n {
		b := z.one(&probs[symbol])
		symbol = symbol<<1 | b
		value |= b << i
	}
	return value
}

// direct decodes so many bits that are as likely 0 as 1.
func (z *lzma2Reader) direct(n int) (value uint32) {
	for range n {
		z.normalize()
		z.rng >>= 1
		diff, zero := bits.Sub32(z.code, z.rng, 0)
		z.code = diff + z.rng&-zero
		value = value<<1 | (1 - zero)
	}
	return value
}

func (z *lzma2Reader) normalize() {
	if z.rng < lzmaTop {
		z.rng, z.code = z.rng<<8, z.code<<8|uint32(z.data[z.pos&lzmaMask])
		z.pos++
	}
}

func (z *lzma2Reader) one(prob *uint16) (b uint32) {
	z.normalize()
	b, z.rng, z.code = bit(prob, z.rng, z.code)
	return b
}

func (z *lzma2Reader) matchLength(l *lengthCoder, posState uint32) uint32 {
	switch {
	case z.one(&l.choice) == 0:
		return z.tree(l.low[posState][:], 3)
	case z.one(&l.choice2) == 0:
		return 8 + z.tree(l.mid[posState][:], 3)
	}
	return 16 + z.tree(l.high[:], 8)
}

func (z *lzma2Reader) distance(length uint32) uint32 {
	slot := z.tree(z.model.slots[min(length, 3)][:], 6)
	if slot < 4 {
		return slot
	}
	n := int(slot>>1) - 1
	dist := (2 | slot&1) << n
	if slot < 14 {
		return dist + z.reverse(z.model.special[dist-slot:], n)
	}
	dist += z.direct(n-4) << 4
	return dist + z.reverse(z.model.align[:], 4)
}

// decode decodes up to where next is limit, and reports whether the data is
// well-formed.
func (z *lzma2Reader) decode(limit int) bool {
	if z.pending > 0 && !z.repeat(limit) {
		return false
	}
	posMask := uint32(1)<<z.pb - 1
	m := &z.model
	for z.next < limit {
		if z.pos > z.end {
			return false
		}
		posState := uint32(z.total) & posMask
		if z.one(&m.isMatch[z.state<<4|posState]) == 0 {
			z.literal()
			continue
		}
		var length uint32
		if z.one(&m.isRep[z.state]) == 0 {
			z.rep1, z.rep2, z.rep3 = z.rep0, z.rep1, z.rep2
			length = z.matchLength(&m.length, posState)
			z.state = after(z.state, 7, 10)
			z.rep0 = z.distance(length)
		} else {
			if z.one(&m.isRepG0[z.state]) == 0 {
				if z.one(&m.isRep0Long[z.state<<4|posState]) == 0 {
					z.state = after(z.state, 9, 11)
					z.pending = 1
					if !z.repeat(limit) {
						return false
					}
					continue
				}
			} else {
				z.rotate()
			}
			length = z.matchLength(&m.repLength, posState)
			z.state = after(z.state, 8, 11)
		}
		z.pending = int(length) + 2
		if !z.repeat(limit) {
			return false
		}
	}
	return true
}

// after is the state that follows: one after a literal, or another.
func after(state, literal, other uint32) uint32 {
	if state < 7 {
		return literal
	}
	return other
}

// rotate takes one of the distances before the last.
func (z *lzma2Reader) rotate() {
	var dist uint32
	if z.one(&z.model.isRepG1[z.state]) == 0 {
		dist = z.rep1
	} else {
		if z.one(&z.model.isRepG2[z.state]) == 0 {
			dist = z.rep2
		} else {
			dist, z.rep3 = z.rep3, z.rep2
		}
		z.rep2 = z.rep1
	}
	z.rep1, z.rep0 = z.rep0, dist
}

// before is the byte at a distance, 0 for the one before it, or 0 if there is
// none.
func (z *lzma2Reader) before(dist uint32) byte {
	i := z.next - int(dist) - 1
	if i < 0 {
		i += len(z.dict)
	}
	if i < 0 || z.total == 0 {
		return 0
	}
	return z.dict[i]
}

// literal decodes one byte.
func (z *lzma2Reader) literal() {
	at := (uint32(z.total)&(1<<z.lp-1))<<z.lc + uint32(z.before(0))>>(8-z.lc)
	probs := (*[0x300]uint16)(z.model.literals[0x300*at:])
	rng, code, pos := z.rng, z.code, z.pos
	symbol := uint32(1)
	if z.state >= 7 {
		// The byte that the last match would have gone on with is likely nearly it.
		match := uint32(z.before(z.rep0))
		offset := uint32(0x100)
		for symbol < 0x100 {
			match <<= 1
			like := match & offset
			if rng < lzmaTop {
				rng, code = rng<<8, code<<8|uint32(z.data[pos&lzmaMask])
				pos++
			}
			i := offset + like + symbol
			p := uint32(probs[i])
			bound := (rng >> 11) * p
			diff, zero := bits.Sub32(code, bound, 0)
			mask := -zero
			probs[i] = uint16(p - uint32(int32(p-mask&lzmaTowards)>>lzmaMove))
			rng -= bound
			rng += mask & (bound - rng)
			code = diff + bound&mask
			symbol = symbol<<1 + 1 - zero
			offset &= like ^ -zero // 0 once a bit has differed
		}
	} else {
		for symbol < 0x100 {
			if rng < lzmaTop {
				rng, code = rng<<8, code<<8|uint32(z.data[pos&lzmaMask])
				pos++
			}
			p := uint32(probs[symbol])
			bound := (rng >> 11) * p
			diff, zero := bits.Sub32(code, bound, 0)
			mask := -zero
			probs[symbol] = uint16(p - uint32(int32(p-mask&lzmaTowards)>>lzmaMove))
			rng -= bound
			rng += mask & (bound - rng)
			code = diff + bound&mask
			symbol = symbol<<1 + 1 - zero
		}
	}
	z.rng, z.code, z.pos = rng, code, pos
	z.dict[z.next] = byte(symbol)
	z.next++
	z.total++
	switch {
	case z.state < 4:
		z.state = 0
	case z.state < 10:
		z.state -= 3
	default:
		z.state -= 6
	}
}

// repeat copies what is pending of a match, as far as there is room.
func (z *lzma2Reader) repeat(limit int) bool {
	n := min(z.pending, limit-z.next)
	dist := int(z.rep0) + 1
	if dist > len(z.dict) || dist > z.next && !z.round {
		return false
	}
	from := z.next - dist
	if from < 0 {
		from += len(z.dict)
	}
	z.pending -= n
	z.total += uint64(n)
	d := z.dict
	for n > 0 {
		// Up to the ring's end, and no further than what is there already: copied in
		// one piece, a byte could not repeat itself.
		step := min(n, len(d)-from)
		if from < z.next {
			step = min(step, z.next-from)
		}
		if to := d[z.next : z.next+step]; step < 16 {
			for i, b := range d[from : from+step] {
				to[i] = b
			}
		} else {
			copy(to, d[from:from+step])
		}
		z.next += step
		n -= step
		if from += step; from == len(d) {
			from = 0
		}
	}
	return true
}
