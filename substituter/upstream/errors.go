package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

var (
	// ErrAbsent is the cache's own word that it does not have the file. Every
	// other error means that the cache could not be asked, or talks nonsense, as
	// a captive portal does.
	ErrAbsent = errors.New("upstream: absent")
	// ErrFiltered is an ErrAbsent: the cache has the path, but its owner does not
	// want paths of that name from it.
	ErrFiltered = fmt.Errorf("%w by the filter", ErrAbsent)

	errConnect = errors.New("connect")
)

// StatusError is an answer that says neither what was asked for nor that it is
// absent.
type StatusError struct {
	Code int
	// RetryAfter is how long the cache wants to be left alone, as 429 and 503
	// may say; 0 where it does not.
	RetryAfter time.Duration
}

// Error implements error.
func (e *StatusError) Error() string { return fmt.Sprintf("status %d", e.Code) }

// Refused reports whether err is the cache's word that it does not know us.
func Refused(err error) bool {
	var status *StatusError
	return errors.As(err, &status) && (status.Code == http.StatusUnauthorized || status.Code == http.StatusForbidden)
}

// Unconnected reports whether err means that there was no connection to the
// cache, so that every other question would have ended alike.
func Unconnected(err error) bool {
	var cert *tls.CertificateVerificationError
	return errors.Is(err, errConnect) || errors.As(err, &cert)
}

// TimedOut reports whether err means that the cache took too long.
func TimedOut(err error) bool {
	var timeout net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, errStalled) ||
		errors.As(err, &timeout) && timeout.Timeout()
}

// statusError tells absent from broken. S3 says 403 for a missing file where
// listing is not allowed; but from a private cache 403 can as well mean that
// our password has expired, and then we know nothing.
func (c *Client) statusError(resp *http.Response) error {
	switch status := resp.StatusCode; {
	case status == http.StatusNotFound, status == http.StatusGone:
		return ErrAbsent
	case status == http.StatusForbidden && !c.private:
		return ErrAbsent
	case status == http.StatusTooManyRequests, status == http.StatusServiceUnavailable:
		return &StatusError{Code: status, RetryAfter: retryAfter(resp.Header.Get("Retry-After"))}
	default:
		return &StatusError{Code: status}
	}
}

// retryAfter reads the header of that name: seconds or a date (RFC 9110,
// section 10.2.3). What is neither, or past, is 0.
func retryAfter(text string) time.Duration {
	if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	date, err := http.ParseTime(text)
	if err != nil {
		return 0
	}
	return max(0, time.Until(date))
}

// withoutURL takes away the address that http.Client puts before its errors:
// that of a redirect may be signed, and so be a key to the file.
func withoutURL(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err
	}
	return err
}
