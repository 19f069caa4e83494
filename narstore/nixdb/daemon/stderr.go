package daemon

import "fmt"

// Before each answer the daemon sends messages, the last of which is msgLast or
// msgError (libstore/worker-protocol.hh).
const (
	msgWrite         = 0x64617416
	msgRead          = 0x64617461
	msgError         = 0x63787470
	msgNext          = 0x6f6c6d67
	msgStartActivity = 0x53545254
	msgStopActivity  = 0x53544f50
	msgResult        = 0x52534c54
	msgLast          = 0x616c7473
)

// Error is the daemon's refusal of one operation. The connection is still good.
type Error struct {
	// Message is the daemon's own text.
	Message string
}

func (e *Error) Error() string { return fmt.Sprintf("daemon: nix-daemon says: %.1000s", e.Message) }

// messages reads up to the end of the messages. It returns nil where the answer
// follows, an *Error where the daemon refuses, or the error of the connection.
func (r *reader) messages(version uint64) error {
	for range maxMessages {
		switch msg := r.uint64(); msg {
		case msgLast:
			return nil
		case msgError:
			return r.refusal(version)
		case msgNext, msgWrite:
			r.string(maxTextLen)
		case msgStartActivity:
			for range 3 { // number, level, type
				r.uint64()
			}
			r.string(maxTextLen)
			r.fields()
			r.uint64() // parent
		case msgStopActivity:
			r.uint64()
		case msgResult:
			r.uint64() // number
			r.uint64() // type
			r.fields()
		default: // msgRead too: none of our operations sends data
			r.fail(fmt.Errorf("unexpected message %#x", msg))
		}
		if r.err != nil {
			return r.err
		}
	}
	r.fail(fmt.Errorf("more than %d messages before an answer", maxMessages))
	return r.err
}

// fields passes over the fields of an activity: integers and strings.
func (r *reader) fields() {
	for range r.count("fields", maxMessages) {
		switch kind := r.uint64(); kind {
		case 0:
			r.uint64()
		case 1:
			r.string(maxTextLen)
		default:
			r.fail(fmt.Errorf("field of unknown type %d", kind))
		}
		if r.err != nil {
			return
		}
	}
}

// refusal reads an error: structured since 1.26, before that a text and a
// status.
func (r *reader) refusal(version uint64) error {
	if version < 1<<8|26 {
		text := r.string(maxTextLen)
		r.uint64()
		return r.or(&Error{Message: text})
	}
	r.string(maxTextLen) // "Error"
	r.uint64()           // level
	r.string(maxTextLen) // name, no longer used
	text := r.string(maxTextLen)
	r.uint64() // position: always 0
	for range r.count("traces", maxMessages) {
		r.uint64() // position
		r.string(maxTextLen)
		if r.err != nil {
			break
		}
	}
	return r.or(&Error{Message: text})
}

// or returns the error of the connection, or else err.
func (r *reader) or(err error) error {
	if r.err != nil {
		return r.err
	}
	return err
}
