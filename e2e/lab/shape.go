package lab

import (
	"math/rand/v2"
	"slices"
	"time"
)

// Line is how a host of a Net is connected with it, the same in both directions.
type Line struct {
	// Shared says that both directions together have Rate, as over Wi-Fi.
	Shared bool
	// Rate in bits per second, Ethernet's headers included; 0 means as fast as
	// the machine is.
	Rate int64
	// Delay of each direction. A round trip between two hosts takes twice the sum
	// of their delays.
	Delay time.Duration
	// Loss is the share of packets that are lost in each direction.
	Loss float64
	// Reorder is the share of packets that take reorderBy longer than the others,
	// which overtake them.
	Reorder float64
	// Queue is how long a packet waits at most for those before it, as a time at
	// Rate: those that would wait longer are dropped. 0 means 2*Delay, and 10 ms
	// at least.
	Queue time.Duration
}

// minQueue holds what TCP sends at once, at the rates of today.
const minQueue = 10 * time.Millisecond

// reorderBy is a dozen packets of a line of 10 Mbit/s: more than the three by which
// TCP's oldest rule takes a packet for lost.
const reorderBy = 15 * time.Millisecond

func (l *Line) queue() time.Duration {
	if l.Queue > 0 {
		return l.Queue
	}
	return max(2*l.Delay, minQueue)
}

// segments reports whether the kernel has to cut what it sends into packets:
// else it hands over up to 64 KiB at once, as it does to a network card, which
// is how much of a fast line is used at a time. But on a slow one such a burst
// would be a long one, and where one is lost it would all be.
func (l *Line) segments() bool {
	const fast = 500_000_000
	return l.Loss > 0 || l.Reorder > 0 || l.Rate > 0 && l.Rate < fast
}

// directions returns both of a line. What happens by chance follows from the seed.
func (l *Line) directions(seed uint64) (up, down shaper) {
	up = shaper{line: *l, free: new(time.Duration), random: rand.New(rand.NewPCG(seed, 0))}
	down = shaper{line: *l, free: new(time.Duration), random: rand.New(rand.NewPCG(seed, 1))}
	if l.Shared {
		down.free = up.free
	}
	return up, down
}

// shaper is one direction of a line. Times are since any moment, the same one
// for all.
type shaper struct {
	line   Line
	random *rand.Rand
	// free is when all that was admitted has been sent, by both directions where they
	// share the line.
	free *time.Duration
}

// admit returns when a packet of size bytes that comes at now arrives at the
// other end of the line, or false where it does not.
func (s *shaper) admit(now time.Duration, size int) (due time.Duration, ok bool) {
	begin := max(now, *s.free)
	if begin-now > s.line.queue() {
		return 0, false
	}
	if s.line.Rate > 0 {
		begin += time.Duration(float64(size) * 8 / float64(s.line.Rate) * float64(time.Second))
	}
	*s.free = begin
	// What is lost has used the line.
	if s.line.Loss > 0 && s.random.Float64() < s.line.Loss {
		return 0, false
	}
	due = begin + s.line.Delay
	if s.line.Reorder > 0 && s.random.Float64() < s.line.Reorder {
		due += reorderBy
	}
	return due, true
}

// pipe is a direction of a line and what is under way in it, in the order in which
// it arrives.
type pipe struct {
	shaper
	under []packet
	// first is where the packet is that arrives next; those before have.
	first int
	// next takes what has arrived, at the time when it did.
	next func(p packet)
}

// packet is one that is under way, or several that the kernel has sent as one.
type packet struct {
	bytes []byte
	due   time.Duration
}

// put admits a packet. It returns false, and does not keep it, where it is lost.
func (p *pipe) put(now time.Duration, bytes []byte, size int) bool {
	due, ok := p.admit(now, size)
	if ok {
		at := len(p.under)
		for at > p.first && p.under[at-1].due > due {
			at--
		}
		p.under = slices.Insert(p.under, at, packet{bytes, due})
	}
	return ok
}

// due returns when the next packet arrives.
func (p *pipe) due() (due time.Duration, ok bool) {
	if p.first == len(p.under) {
		return 0, false
	}
	return p.under[p.first].due, true
}

// take hands on the packet that is due next.
func (p *pipe) take() {
	arrived := p.under[p.first]
	p.under[p.first] = packet{}
	if p.first++; p.first*2 >= len(p.under) {
		n := copy(p.under, p.under[p.first:])
		clear(p.under[n:])
		p.under, p.first = p.under[:n], 0
	}
	p.next(arrived)
}
