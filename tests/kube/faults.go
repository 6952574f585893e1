package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"regexp"
	"sync"
	"time"

	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A rule says what happens to the requests that it matches; the first that matches counts.
type rule struct {
	// Names the rule in the counts, and in what remains of its limit.
	Name string `json:"name"`
	// get, list, watch, create, update, patch, delete; empty: any.
	Verb string `json:"verb"`
	// A regular expression that the path must match.
	Path string `json:"path"`
	// status, delay, cut, lose, stale.
	Action string `json:"action"`
	// The status of the answer.
	Code int `json:"code"`
	// How long to wait: before the request goes on (delay), or before a watch is cut (cut).
	Milliseconds int `json:"milliseconds"`
	// Of the requests, so many are hit; absent: all.
	Percent *int `json:"percent"`
	// So many requests are hit, and then no more; absent: no limit.
	Limit *int `json:"limit"`
}

type faults struct {
	rules, counts string
	upstream      *httputil.ReverseProxy

	mutex  sync.Mutex
	random *rand.Rand
	hits   map[string]int
	// The last answer to each list, from the time when no rule made it stale.
	lists map[string]answer
}

type answer struct {
	header http.Header
	body   []byte
}

// injectFaults API_SERVER AUTHORITY LISTEN CERTIFICATE KEY RULES COUNTS SEED stands before the API server. RULES is a
// file with a JSON list of rules, read at every request; COUNTS is where it writes how often each was used.
func injectFaults() int {
	if len(os.Args) != 9 {
		fmt.Fprintln(os.Stderr, "usage: faults API_SERVER AUTHORITY LISTEN CERTIFICATE KEY RULES COUNTS SEED")
		return 2
	}
	if err := serveFaults(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func serveFaults(arguments []string) error {
	target, err := url.Parse(arguments[0])
	if err != nil {
		return err
	}
	authority, err := os.ReadFile(arguments[1])
	if err != nil {
		return err
	}
	var seed uint64
	if _, err := fmt.Sscan(arguments[7], &seed); err != nil {
		return err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(authority)
	upstream := httputil.NewSingleHostReverseProxy(target)
	upstream.Transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, MaxIdleConnsPerHost: 100}
	upstream.FlushInterval = -1
	proxy := &faults{
		rules: arguments[5], counts: arguments[6], upstream: upstream,
		random: rand.New(rand.NewPCG(seed, 0)), hits: map[string]int{}, lists: map[string]answer{},
	}
	// What has to be told to the client is told by aborting its stream.
	upstream.ErrorHandler = func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) }
	upstream.ModifyResponse = proxy.remember
	server := &http.Server{Addr: arguments[2], Handler: proxy}
	return server.ListenAndServeTLS(arguments[3], arguments[4])
}

// verb is what Kubernetes calls the request.
func verb(request *http.Request) string {
	switch request.Method {
	case http.MethodPost:
		return "create"
	case http.MethodPut:
		return "update"
	case http.MethodPatch:
		return "patch"
	case http.MethodDelete:
		return "delete"
	}
	if watch := request.URL.Query().Get("watch"); watch == "true" || watch == "1" {
		return "watch"
	}
	if parts := path.FindStringSubmatch(request.URL.Path); parts != nil && parts[1] == "" {
		return "list"
	}
	return "get"
}

// PREFIX/RESOURCE, or with the name of an object, either in a namespace or not. A namespace itself is its own object.
var path = regexp.MustCompile(`^/(?:api/v1|apis/[^/]+/[^/]+)(?:/namespaces/[^/]+)?/[^/]+(/.+)?$`)

// match gives the first rule for a request, and counts it.
func (f *faults) match(request *http.Request) (rule, error) {
	text, err := os.ReadFile(f.rules)
	if err != nil {
		return rule{}, err
	}
	var rules []rule
	if err := json.Unmarshal(text, &rules); err != nil {
		return rule{}, err
	}
	what := verb(request)
	f.mutex.Lock()
	defer f.mutex.Unlock()
	for _, rule := range rules {
		expression, err := regexp.Compile(rule.Path)
		if err != nil {
			return rule, err
		}
		matches := (rule.Verb == "" || rule.Verb == what) && expression.MatchString(request.URL.Path)
		if !matches || (rule.Limit != nil && f.hits[rule.Name] >= *rule.Limit) {
			continue
		}
		if rule.Percent != nil && f.random.IntN(100) >= *rule.Percent {
			continue
		}
		f.hits[rule.Name]++
		counts, err := json.Marshal(f.hits)
		if err != nil {
			return rule, err
		}
		if err := os.WriteFile(f.counts+".new", counts, 0o600); err != nil {
			return rule, err
		}
		return rule, os.Rename(f.counts+".new", f.counts)
	}
	return rule{}, nil
}

func (f *faults) ServeHTTP(writer http.ResponseWriter, request *http.Request) {
	rule, err := f.match(request)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		http.Error(writer, err.Error(), http.StatusBadGateway)
		return
	}
	wait := time.Duration(rule.Milliseconds) * time.Millisecond
	switch rule.Action {
	case "":
		f.upstream.ServeHTTP(writer, request)
	case "status":
		refuse(writer, rule.Code)
	case "delay":
		select {
		case <-time.After(wait):
			f.upstream.ServeHTTP(writer, request)
		case <-request.Context().Done():
		}
	case "cut":
		if wait == 0 {
			panic(http.ErrAbortHandler)
		}
		ctx, cancel := context.WithTimeout(request.Context(), wait)
		defer cancel()
		f.upstream.ServeHTTP(writer, request.WithContext(ctx))
	case "lose":
		// It happens, and the client is not told.
		f.upstream.ServeHTTP(nowhere{http.Header{}}, request)
		panic(http.ErrAbortHandler)
	case "stale":
		f.mutex.Lock()
		old, there := f.lists[request.URL.RequestURI()]
		f.mutex.Unlock()
		if !there {
			f.upstream.ServeHTTP(writer, request)
			return
		}
		for key, values := range old.header {
			writer.Header()[key] = values
		}
		if _, err := writer.Write(old.body); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	default:
		http.Error(writer, "no action "+rule.Action, http.StatusBadGateway)
	}
}

// remember keeps the answers to lists.
func (f *faults) remember(response *http.Response) error {
	what := verb(response.Request)
	if response.StatusCode != http.StatusOK || what == "watch" || response.Request.Method != http.MethodGet {
		return nil
	}
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	response.Body = io.NopCloser(bytes.NewReader(body))
	f.mutex.Lock()
	defer f.mutex.Unlock()
	f.lists[response.Request.URL.RequestURI()] = answer{response.Header.Clone(), body}
	return nil
}

// refuse answers as the API server does.
func refuse(writer http.ResponseWriter, code int) {
	reasons := map[int]meta.StatusReason{
		http.StatusConflict:            meta.StatusReasonConflict,
		http.StatusGone:                meta.StatusReasonExpired,
		http.StatusTooManyRequests:     meta.StatusReasonTooManyRequests,
		http.StatusInternalServerError: meta.StatusReasonInternalError,
		http.StatusServiceUnavailable:  meta.StatusReasonServiceUnavailable,
		http.StatusForbidden:           meta.StatusReasonForbidden,
		http.StatusNotFound:            meta.StatusReasonNotFound,
	}
	status := meta.Status{
		TypeMeta: meta.TypeMeta{Kind: "Status", APIVersion: "v1"},
		Status:   meta.StatusFailure, Code: int32(code), Reason: reasons[code], Message: "injected",
	}
	writer.Header().Set("Content-Type", "application/json")
	if code == http.StatusTooManyRequests {
		writer.Header().Set("Retry-After", "1")
	}
	writer.WriteHeader(code)
	if err := json.NewEncoder(writer).Encode(status); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}

// nowhere takes an answer that nobody gets.
type nowhere struct{ header http.Header }

func (n nowhere) Header() http.Header             { return n.header }
func (n nowhere) Write(bytes []byte) (int, error) { return len(bytes), nil }
func (n nowhere) WriteHeader(int)                 {}
