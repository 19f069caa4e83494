package substituter

import (
	"errors"
	"strconv"
	"strings"

	"github.com/nar-p2p/nar-p2p/substituter/verify"
)

var errUnsatisfiable = errors.New("range lies beyond the end")

// parseRange reads a Range header for size bytes. It returns ok = false where
// the whole is to be sent, because the header is malformed, in another unit or
// asks for several ranges (RFC 9110, section 14.2, lets a server ignore it),
// and errUnsatisfiable where no byte is meant.
func parseRange(header string, size int64) (want verify.Range, ok bool, err error) {
	whole := verify.Range{From: 0, To: size}
	unit, set, found := strings.Cut(header, "=")
	first, last, isRange := strings.Cut(strings.Trim(set, " \t"), "-")
	if !found || !strings.EqualFold(unit, "bytes") || !isRange || strings.Contains(set, ",") {
		return whole, false, nil
	}
	if first == "" { // the last so many bytes
		n, ok := parsePosition(last)
		switch {
		case !ok:
			return whole, false, nil
		case n == 0:
			return whole, false, errUnsatisfiable
		}
		return verify.Range{From: max(size-n, 0), To: size}, true, nil
	}
	from, ok := parsePosition(first)
	if !ok {
		return whole, false, nil
	}
	to := size
	if last != "" {
		end, ok := parsePosition(last)
		if !ok || end < from {
			return whole, false, nil
		}
		to = min(size-1, end) + 1
	}
	if from >= size {
		return whole, false, errUnsatisfiable
	}
	return verify.Range{From: from, To: to}, true, nil
}

// parsePosition parses digits alone. What does not fit is as good as the
// largest number.
func parsePosition(s string) (int64, bool) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil || errors.Is(err, strconv.ErrRange)
}
