package sim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	pb "github.com/libp2p/go-libp2p-kad-dht/pb"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"google.golang.org/protobuf/encoding/protodelim"
)

// Traffic is what a host has sent and, in answer, received.
type Traffic struct {
	// Messages sent, by type, as pb.Message_MessageType.
	Messages map[pb.Message_MessageType]int
	// Sent and Received are bytes of messages with their lengths.
	Sent, Received int
	// SentRecords is the part of Sent that was ADD_PROVIDER messages.
	SentRecords int
	// Contacts is how many different hosts messages went to: as many connections
	// there would be.
	Contacts int
	// Failed counts messages to hosts that were down.
	Failed int
}

type traffic struct {
	messages                            [8]atomic.Int64
	sent, received, sentRecords, failed atomic.Int64

	mu       sync.Mutex
	contacts map[peer.ID]struct{}
}

func (t *traffic) contact(p peer.ID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.contacts == nil {
		t.contacts = make(map[peer.ID]struct{})
	}
	t.contacts[p] = struct{}{}
}

// Traffic returns what the host has sent so far.
func (h *Host) Traffic() Traffic {
	t := &h.traffic
	t.mu.Lock()
	contacts := len(t.contacts)
	t.mu.Unlock()
	sum := Traffic{
		Messages:    make(map[pb.Message_MessageType]int),
		Sent:        int(t.sent.Load()),
		Received:    int(t.received.Load()),
		SentRecords: int(t.sentRecords.Load()),
		Contacts:    contacts,
		Failed:      int(t.failed.Load()),
	}
	for i := range t.messages {
		if n := t.messages[i].Load(); n > 0 {
			sum.Messages[pb.Message_MessageType(i)] = int(n)
		}
	}
	return sum
}

// sender returns what sends the messages of one host through the network.
func (n *Network) sender(h host.Host, ids []protocol.ID) pb.MessageSenderWithDisconnect {
	from, ok := h.(*Host)
	if !ok {
		panic(fmt.Sprintf("sim: a host of type %T", h))
	}
	return &sender{from: from, protocol: ids[0]}
}

type sender struct {
	from     *Host
	protocol protocol.ID
}

// SendMessage implements pb.MessageSender.
func (s *sender) SendMessage(ctx context.Context, to peer.ID, msg *pb.Message) error {
	_, err := s.exchange(ctx, to, msg)
	return err
}

// SendRequest implements pb.MessageSender.
func (s *sender) SendRequest(ctx context.Context, to peer.ID, msg *pb.Message) (*pb.Message, error) {
	answer, err := s.exchange(ctx, to, msg)
	if err != nil {
		return nil, err
	}
	response := new(pb.Message)
	if err := protodelim.UnmarshalFrom(answer, response); err != nil {
		return nil, fmt.Errorf("sim: %w", err)
	}
	if trace, ok := ctx.Value(traceKey{}).(*Trace); ok {
		trace.note(to, response)
	}
	return response, nil
}

// OnDisconnect implements pb.MessageSenderWithDisconnect.
func (s *sender) OnDisconnect(context.Context, peer.ID) {}

// exchange runs the receiver's handler on the message and returns its answer.
func (s *sender) exchange(ctx context.Context, to peer.ID, msg *pb.Message) (*bytes.Buffer, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	t := &s.from.traffic
	receiver, ok := s.from.net.host(to)
	if !ok || s.from.down.Load() || msg.GetType() == pb.Message_ADD_PROVIDER && receiver.full.Load() {
		t.failed.Add(1)
		return nil, errUnreachable
	}
	handler := receiver.get(s.protocol)
	if handler == nil {
		return nil, errors.New("sim: protocol not supported")
	}
	st := &stream{remote: s.from.id}
	if _, err := protodelim.MarshalTo(&st.in, msg); err != nil {
		return nil, fmt.Errorf("sim: %w", err)
	}
	size := int64(st.in.Len())
	t.contact(to)
	t.messages[msg.GetType()].Add(1)
	t.sent.Add(size)
	if msg.GetType() == pb.Message_ADD_PROVIDER {
		t.sentRecords.Add(size)
	}
	handler(st)
	if st.reset {
		return nil, errors.New("sim: stream reset")
	}
	t.received.Add(int64(st.out.Len()))
	return &st.out, nil
}

// stream carries one message to a handler and its answer back.
type stream struct {
	network.Stream

	remote  peer.ID
	in, out bytes.Buffer
	reset   bool
}

func (s *stream) Read(p []byte) (int, error) {
	if s.in.Len() == 0 {
		return 0, io.EOF
	}
	return s.in.Read(p)
}

func (s *stream) Write(p []byte) (int, error) { return s.out.Write(p) }
func (s *stream) Close() error                { return nil }
func (s *stream) Reset() error                { s.reset = true; return nil }
func (s *stream) SetDeadline(time.Time) error { return nil }
func (s *stream) Conn() network.Conn          { return conn{remote: s.remote} }

type conn struct {
	network.Conn

	remote peer.ID
}

func (c conn) RemotePeer() peer.ID { return c.remote }
