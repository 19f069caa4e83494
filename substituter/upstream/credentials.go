package upstream

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"
)

// maxSecret bounds a file with credentials, in bytes.
const maxSecret = 1 << 20

// credentials is what a cache gets to see of us, and no other host does. Those
// in a file are read again when the file has changed, since tokens are renewed.
type credentials struct {
	file  string // "" if there is none
	parse func(text string) (header string, err error)

	mu      sync.Mutex
	header  string // the value of Authorization, or ""
	changed time.Time
	size    int64
}

// newCredentials takes the user of the cache's address, a netrc file or a file
// with a token: one of them at most.
func newCredentials(u *url.URL, netrc, token string) (*credentials, error) {
	c := &credentials{}
	switch {
	case u.User != nil && (netrc != "" || token != ""), netrc != "" && token != "":
		return nil, errors.New("more than one of a user in the address, a netrc and a token file")
	case u.User != nil:
		password, _ := u.User.Password()
		c.header = basicAuth(u.User.Username(), password)
	case netrc != "":
		host := u.Hostname()
		c.file, c.parse = netrc, func(text string) (string, error) {
			login, password, err := netrcLogin(text, host)
			return basicAuth(login, password), err
		}
	case token != "":
		c.file, c.parse = token, bearer
	}
	_, err := c.authorization()
	return c, err
}

func basicAuth(login, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(login+":"+password))
}

func bearer(text string) (string, error) {
	token := strings.TrimSpace(text)
	for _, c := range []byte(token) {
		if c <= ' ' || c > '~' {
			return "", errors.New("is not one token of visible characters")
		}
	}
	if token == "" {
		return "", errors.New("is empty")
	}
	return "Bearer " + token, nil
}

// any reports whether there are credentials.
func (c *credentials) any() bool { return c.file != "" || c.header != "" }

// authorization returns the value of the header of that name, or "".
func (c *credentials) authorization() (string, error) {
	if c.file == "" {
		return c.header, nil
	}
	header, err := c.read()
	if err != nil {
		return "", fmt.Errorf("credentials: %s: %w", c.file, err)
	}
	return header, nil
}

func (c *credentials) read() (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	info, err := os.Stat(c.file)
	if err != nil {
		return "", withoutPath(err)
	}
	if info.ModTime().Equal(c.changed) && info.Size() == c.size {
		return c.header, nil
	}
	if !info.Mode().IsRegular() { // a pipe would keep us waiting
		return "", errors.New("is not a file")
	}
	file, err := os.Open(c.file)
	if err != nil {
		return "", withoutPath(err)
	}
	defer file.Close()
	text, err := io.ReadAll(&limitedReader{r: file, left: maxSecret})
	if err != nil {
		return "", withoutPath(err)
	}
	header, err := c.parse(string(text))
	if err != nil {
		return "", err
	}
	c.header, c.changed, c.size = header, info.ModTime(), info.Size()
	return header, nil
}

// withoutPath takes away the path, which stands before the error already.
func withoutPath(err error) error {
	if p, ok := errors.AsType[*os.PathError](err); ok {
		return p.Err
	}
	return err
}
