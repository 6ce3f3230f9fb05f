/* Attempts to get out of the sandbox, or to see the machine behind it.
 *
 * Each prints one line, "name: result": the error that stopped it (EPERM, ENOENT, …), or what it got. What each must say
 * is in attempts.py. What they aim at comes from the environment: HOST_PID, CANARY (a file of the machine), HOST_DISK
 * (major:minor), HOST_KEY, SHM_KEY, ABSTRACT (a socket's name), PORT. PREFIX comes before each name.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/fs.h>
#include <linux/rtnetlink.h>
#include <mqueue.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/quota.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/timex.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

static const char *text(const char *name) {
  const char *value = getenv(name);
  return value ? value : "";
}

static long number(const char *name) { return strtol(text(name), NULL, 10); }

static void say(const char *name, const char *result) { printf("%s%s: %s\n", text("PREFIX"), name, result); }

/* The error of a call that gave -1, else what would be an escape. */
static void refused(const char *name, long result) {
  say(name, result < 0 ? strerrorname_np(errno) : "SUCCEEDED");
}

static void opened(const char *name, const char *path, int flags) {
  int fd = open(path, flags | O_NONBLOCK);
  refused(name, fd);
  if (fd >= 0) close(fd);
}

/* -- mounts and roots */

static void mounts(void) {
  refused("mount a tmpfs", mount("none", "/tmp", "tmpfs", 0, NULL));
  refused("mount another proc", mount("proc", "/tmp", "proc", 0, NULL));
  refused("make /sys writable", mount(NULL, "/sys", NULL, MS_REMOUNT | MS_BIND, NULL));
  refused("bind /sys elsewhere", mount("/sys", "/tmp", NULL, MS_BIND | MS_REC, NULL));
  refused("uncover /proc/keys", umount2("/proc/keys", MNT_DETACH));
  refused("fsopen", syscall(430, "ext4", 0));
  refused("fsmount", syscall(432, 3, 0, 0));
  refused("move_mount", syscall(429, AT_FDCWD, "/proc", AT_FDCWD, "/tmp", 0));
  refused("fspick", syscall(433, AT_FDCWD, "/sys", 0));
  refused("open_tree", syscall(428, AT_FDCWD, "/", 1));
  refused("mount_setattr", syscall(442, AT_FDCWD, "/proc/sys", 0, NULL, 0));
  refused("pivot_root", syscall(SYS_pivot_root, ".", "."));
  refused("a mount as an i386 call",
#ifdef __x86_64__
          ({
            long result;
            __asm__ volatile("int $0x80" : "=a"(result) : "a"(21), "b"(0), "c"(0), "d"(0), "S"(0), "D"(0) : "memory");
            errno = (int)-result;
            result < 0 ? -1 : 0;
          })
#else
          syscall(SYS_mount, "none", "/tmp", "tmpfs", 0, NULL)
#endif
  );
  refused("a mount as an x32 call", syscall(0x40000000 | SYS_mount, "none", "/tmp", "tmpfs", 0, NULL));
}

/* chroot() is allowed, and the way out of it that every textbook shows leads to the container's own root. */
static void leave_chroot(void) {
  const char *name = "break out of a chroot";
  mkdir("/tmp/jail", 0755);
  int top = open("/", O_RDONLY | O_DIRECTORY);
  if (chroot("/tmp/jail") < 0 || fchdir(top) < 0) {
    refused(name, -1);
    return;
  }
  for (int depth = 0; depth < 64; depth++)
    if (chdir("..") < 0) break;
  if (chroot(".") < 0) {
    refused(name, -1);
    return;
  }
  close(top);
  rmdir("/tmp/jail");
  opened(name, text("CANARY"), O_RDONLY);
}

static void paths(void) {
  char path[4096];
  opened("a file of the machine by its name", text("CANARY"), O_RDONLY);
  snprintf(path, sizeof path, "/../../../..%s", text("CANARY"));
  opened("the same by way of ..", path, O_RDONLY);
  snprintf(path, sizeof path, "/proc/1/root%s", text("CANARY"));
  opened("the same by way of pid 1", path, O_RDONLY);
  snprintf(path, sizeof path, "/proc/self/cwd/../..%s", text("CANARY"));
  opened("the same by way of the working directory", path, O_RDONLY);
  snprintf(path, sizeof path, "/proc/%s/root/etc", text("HOST_PID"));
  opened("the root of a process of the machine", path, O_RDONLY);
  struct {
    struct file_handle handle;
    unsigned char bytes[128];
  } handle = {.handle.handle_bytes = 128};
  int mount_id;
  if (name_to_handle_at(AT_FDCWD, "/", &handle.handle, &mount_id, 0) < 0) handle.handle.handle_bytes = 8;
  refused("open a file by its handle", open_by_handle_at(open("/", O_RDONLY), &handle.handle, O_RDONLY));
}

/* -- devices */

static void device(const char *name, const char *path, mode_t kind, unsigned major_number, unsigned minor_number) {
  unlink(path);
  if (mknod(path, kind | 0666, makedev(major_number, minor_number)) < 0) {
    /* In a user namespace there is not even the node, */
    say(name, errno == EPERM ? "EACCES" : strerrorname_np(errno));
    return;
  }
  /* or an empty file that stands for it in the layer. */
  char byte;
  int fd = open(path, O_RDONLY | O_NONBLOCK);
  if (fd < 0)
    refused(name, -1);
  else
    say(name, read(fd, &byte, 1) == 0 ? "empty" : "SUCCEEDED");
  if (fd >= 0) close(fd);
  unlink(path);
}

static void devices(void) {
  unsigned disk_major = 0, disk_minor = 0;
  sscanf(text("HOST_DISK"), "%u:%u", &disk_major, &disk_minor);
  device("the machine's disk, made in the root", "/disk", S_IFBLK, disk_major, disk_minor);
  device("the machine's disk, made in /dev", "/dev/disk", S_IFBLK, disk_major, disk_minor);
  device("the machine's disk, made in /dev/shm", "/dev/shm/disk", S_IFBLK, disk_major, disk_minor);
  device("the machine's disk, made in a tmpfs mount", "/mounted/tmpfs/disk", S_IFBLK, disk_major, disk_minor);
  device("the machine's disk, made in a cache mount", "/mounted/cache/disk", S_IFBLK, disk_major, disk_minor);
  device("the machine's disk, made in a writable context", "/mounted/writable/disk", S_IFBLK, disk_major, disk_minor);
  device("kernel memory", "/mem", S_IFCHR, 1, 1);
  device("the kernel's log as a device", "/kmsg", S_IFCHR, 1, 11);
  device("an unknown terminal", "/vt", S_IFCHR, 4, 1);
  opened("/dev/mem", "/dev/mem", O_RDWR);
  opened("/dev/kmsg", "/dev/kmsg", O_RDONLY);
  opened("/dev/fuse", "/dev/fuse", O_RDWR);
  opened("/dev/loop-control", "/dev/loop-control", O_RDWR);
  int null = open("/dev/null", O_WRONLY);
  say("/dev/null, as it should be", null >= 0 && write(null, "x", 1) == 1 ? "works" : strerrorname_np(errno));
  fchmod(0, 0); /* may succeed: it is the container's; the machine's is looked at from outside */
  fchmod(null, 0666);
  chmod("/dev/null", 0666);
}

/* -- the file system below the mounts: a cache lies on the machine's own disk */

static void disk(void) {
  const char *cache = "/mounted/cache";
  int top = open(cache, O_RDONLY | O_DIRECTORY), flags = FS_IMMUTABLE_FL;
  int file = open("/mounted/cache/mine", O_CREAT | O_RDWR, 0600);
  refused("freeze the machine's file system", ioctl(top, FIFREEZE, 0));
  unsigned shut_down = 2; /* without flushing: FS_IOC_SHUTDOWN of ext4, xfs and others */
  refused("shut the machine's file system down", ioctl(top, _IOR('X', 125, uint32_t), &shut_down));
  refused("a file that nobody can remove", ioctl(file, FS_IOC_SETFLAGS, &flags));
  refused("quotas of the machine", quotactl(QCMD(Q_SYNC, USRQUOTA), NULL, 0, NULL));
  refused("a mark that is for the machine's overlays", setxattr(cache, "trusted.overlay.redirect", "/etc", 4, 0));
  refused("an open file of a cache by its handle", ({
            char room[sizeof(struct file_handle) + 128];
            struct file_handle *handle = (struct file_handle *)room;
            int mount_id;
            handle->handle_bytes = 128;
            name_to_handle_at(top, "mine", handle, &mount_id, 0);
            open_by_handle_at(top, handle, O_RDWR);
          }));
  refused("a link out of a cache", link("/mounted/cache/mine", "/stolen"));
  refused("a name out of a cache", rename("/mounted/cache/mine", "/moved"));
  close(file);
  unlink("/mounted/cache/mine");
}

/* -- the kernel's state */

static void contents(const char *name, const char *path) {
  char byte;
  int fd = open(path, O_RDONLY | O_NONBLOCK);
  if (fd < 0) {
    refused(name, -1);
    return;
  }
  ssize_t got = read(fd, &byte, 1);
  say(name, got == 0 ? "empty" : got > 0 ? "SUCCEEDED" : strerrorname_np(errno));
  close(fd);
}

/* What a write to a file of the kernel's would do. */
static void written(const char *name, const char *path, const char *text) {
  int fd = open(path, O_WRONLY | O_NONBLOCK);
  refused(name, fd < 0 ? -1 : write(fd, text, strlen(text)));
  if (fd >= 0) close(fd);
}

static void empty(const char *path) {
  DIR *folder = opendir(path);
  int entries = 0;
  for (struct dirent *entry; folder && (entry = readdir(folder));) entries += entry->d_name[0] != '.';
  if (folder) closedir(folder);
  say(path, entries ? "SUCCEEDED" : "empty");
}

static void kernel(void) {
  written("a program that the machine starts for a device", "/sys/kernel/uevent_helper", "/attempts");
  written("a program that the machine starts for a module", "/proc/sys/kernel/modprobe", "/attempts");
  written("a program that the machine starts for a format", "/proc/sys/fs/binfmt_misc/register", ":a:M::a::/attempts:");
  written("be spared when memory runs short", "/proc/self/oom_score_adj", "-1000");
  written("empty the machine's caches", "/proc/sys/vm/drop_caches", "3");
  empty("/sys/kernel/debug");
  empty("/sys/kernel/tracing");
  empty("/sys/fs/bpf");
  empty("/sys/firmware");
  refused("go before the machine's processes", setpriority(PRIO_PROCESS, 0, -20));
  refused("read and write first", syscall(SYS_ioprio_set, 1, 0, 1 << 13));
  refused("turn the clock", adjtimex(&(struct timex){.modes = ADJ_SETOFFSET, .time = {1, 0}}));
#ifdef __x86_64__
  refused("ports of the machine's devices", syscall(SYS_ioperm, 0x70, 1, 1));
#else
  refused("ports of the machine's devices", (errno = EPERM, -1));
#endif
  contents("/proc/kcore", "/proc/kcore");
  contents("/proc/keys", "/proc/keys");
  contents("/proc/timer_list", "/proc/timer_list");
  contents("/proc/interrupts", "/proc/interrupts");
  opened("/proc/kmsg", "/proc/kmsg", O_RDONLY);
  opened("reboot by /proc/sysrq-trigger", "/proc/sysrq-trigger", O_WRONLY);
  opened("a core dump handler on the machine", "/proc/sys/kernel/core_pattern", O_WRONLY);
  opened("what the machine does when it panics", "/proc/sys/kernel/panic", O_WRONLY);
  opened("an interrupt's processors", "/proc/irq/default_smp_affinity", O_WRONLY);
  opened("an interface's settings in /sys", "/sys/class/net/lo/mtu", O_WRONLY);
  refused("the kernel's log", syscall(SYS_syslog, 3, NULL, 0));
  refused("set the clock", settimeofday(&(struct timeval){0, 0}, NULL));
  refused("rename the machine", sethostname("escaped", 7));
  refused("reboot", syscall(SYS_reboot, 0xfee1dead, 672274793, 0x89ABCDEF, NULL));
  refused("load a module", syscall(SYS_finit_module, 0, "", 0));
  refused("kexec", syscall(SYS_kexec_load, 0, 0, NULL, 0));
  refused("swapon", swapon("/disk", 0));
  refused("process accounting", acct("/acct"));
  refused("bpf", syscall(SYS_bpf, 0, NULL, 0));
  refused("perf_event_open", syscall(SYS_perf_event_open, NULL, 0, -1, -1, 0));
  refused("userfaultfd", syscall(SYS_userfaultfd, 0));
  refused("io_uring", syscall(425, 1, NULL));
  refused("fanotify", syscall(SYS_fanotify_init, 0, 0));
  refused("no address randomization", personality(ADDR_NO_RANDOMIZE));
  refused("a real-time scheduler", sched_setscheduler(0, SCHED_FIFO, &(struct sched_param){.sched_priority = 1}));
  refused("a call that nobody knows", syscall(1000));
  refused("where the processors look for pages", syscall(SYS_migrate_pages, 1, 0, NULL, NULL));
  refused("where pages of a process lie", syscall(SYS_move_pages, 1, 0, NULL, NULL, NULL, 0));
  refused("what two processes share", syscall(SYS_kcmp, 1, getpid(), 0, 0, 0));
  refused("advice about a process's memory", syscall(440, -1, NULL, 0, 0, 0));
  refused("another program's name for this one", prctl(PR_SET_MM, PR_SET_MM_EXE_FILE, 0, 0, 0));
  refused("hang the terminal up", syscall(SYS_vhangup));
  refused("remove a module", syscall(SYS_delete_module, "x", 0));
  refused("the file systems' statistics", syscall(SYS_quotactl, QCMD(Q_GETQUOTA, USRQUOTA), "/dev/null", 0, NULL));
  uint64_t page = 0;
  int pages = open("/proc/self/pagemap", O_RDONLY);
  if (pread(pages, &page, sizeof page, (off_t)((uintptr_t)&page >> 12) * 8) < 0) page = 0;
  say("physical addresses", page << 9 ? "SUCCEEDED" : "none"); /* bits 0-54: proc_pid_pagemap(5) */
  char symbol[64] = "";
  FILE *symbols = fopen("/proc/kallsyms", "r");
  if (symbols && !fgets(symbol, sizeof symbol, symbols)) *symbol = 0;
  say("the kernel's addresses", strtoull(symbol, NULL, 16) ? "SUCCEEDED" : "none");
}

/* -- namespaces and rights */

/* By what the kernel tells of namespaces (ioctl_nsfs(2)), and by handles, which for these need no mount. */
static void others_namespaces(void) {
  char information[64] = {16};
  struct {
    struct file_handle handle;
    unsigned char bytes[128];
  } handle = {.handle = {.handle_bytes = 16, .handle_type = 0xf1}};
  int mounts = open("/proc/self/ns/mnt", O_RDONLY);
  refused("the next mount namespace", ioctl(mounts, _IOR(0xb7, 11, char[16]), information));
  refused("the mount namespace before", ioctl(mounts, _IOR(0xb7, 12, char[16]), information));
  refused("the user namespace around", ioctl(open("/proc/self/ns/user", O_RDONLY), _IO(0xb7, 2)));
  refused("the pid namespace around", ioctl(open("/proc/self/ns/pid", O_RDONLY), _IO(0xb7, 2)));
  refused("a namespace by its handle", open_by_handle_at(-10003, &handle.handle, O_RDONLY)); /* FD_NSFS_ROOT */
  refused("a process by its handle", open_by_handle_at(-10002, &handle.handle, O_RDONLY)); /* FD_PIDFS_ROOT */
  refused("a copy of a mount with other attributes", syscall(467, AT_FDCWD, "/", 1, NULL, 0)); /* open_tree_attr */
  refused("attributes of a file by its name", syscall(469, AT_FDCWD, "/", information, 24, 0)); /* file_setattr */
  refused("quotas by a descriptor", syscall(443, mounts, 0, 0, NULL));
}

static int nothing(void *unused) {
  (void)unused;
  return 0;
}

static void namespaces(void) {
  static char stack[65536];
  refused("a user namespace by unshare", unshare(CLONE_NEWUSER));
  refused("a user namespace by clone", clone(nothing, stack + sizeof stack, CLONE_NEWUSER | SIGCHLD, NULL));
  refused("a user namespace by clone3", syscall(435, &(uint64_t[8]){CLONE_NEWUSER, 0, 0, 0, SIGCHLD}, 64));
  refused("a mount namespace", unshare(CLONE_NEWNS));
  refused("enter the namespace of pid 1", setns(open("/proc/1/ns/mnt", O_RDONLY), CLONE_NEWNS));
  struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct data[2] = {{1u << CAP_SYS_ADMIN, 1u << CAP_SYS_ADMIN, 0}, {0, 0, 0}};
  refused("more capabilities", syscall(SYS_capset, &head, data));
  refused("an ambient capability", prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_SYS_ADMIN, 0, 0));
  int bounds = 0;
  for (int capability = 0; capability < 64; capability++)
    bounds += prctl(PR_CAPBSET_READ, capability, 0, 0, 0) == 1 && (0x1ffffffffffUL & ~0xa80425fbUL) >> capability & 1;
  say("capabilities that a set-user-ID program could bring", bounds ? "SUCCEEDED" : "none");
  refused("core dumps", setrlimit(RLIMIT_CORE, &(struct rlimit){RLIM_INFINITY, RLIM_INFINITY}));
  refused("another map of ids", ({
            int fd = open("/proc/self/uid_map", O_WRONLY);
            fd < 0 ? -1 : write(fd, "0 0 4294967295", 14);
          }));
}

/* -- processes, keys, messages */

static void processes(void) {
  pid_t host = (pid_t)number("HOST_PID");
  char buffer[8];
  struct iovec own = {buffer, sizeof buffer}, other = {(void *)0x400000, sizeof buffer};
  refused("signal a process of the machine", kill(host, SIGKILL));
  refused("trace a process of the machine", ptrace(PTRACE_ATTACH, host, NULL, NULL));
  refused("a descriptor of a process of the machine", syscall(434, host, 0));
  say("a parent outside", getppid() < 100 ? "none" : "SUCCEEDED");
  char outside[64] = "";
  struct stat null, found_stat;
  stat("/dev/null", &null);
  for (int fd = 0; fd < 3; fd++) /* each a pipe, or the container's own device */
    if (fstat(fd, &found_stat) < 0 ||
        !(S_ISFIFO(found_stat.st_mode) || (found_stat.st_dev == null.st_dev && found_stat.st_ino == null.st_ino)))
      snprintf(outside, sizeof outside, "SUCCEEDED %d", fd);
  say("files of the machine as input and output", *outside ? outside : "none");
  refused("read the memory of a process of the machine", process_vm_readv(host, &own, 1, &other, 1, 0));
  int highest = 0;
  DIR *proc = opendir("/proc");
  for (struct dirent *entry; proc && (entry = readdir(proc));)
    if (atoi(entry->d_name) > highest) highest = atoi(entry->d_name);
  say("processes of others in /proc", highest < 100 ? "none" : "SUCCEEDED");
  char found[256] = "";
  for (int fd = 3; fd < 1024; fd++)
    if (fcntl(fd, F_GETFD) >= 0 && (proc == NULL || fd != dirfd(proc))) snprintf(found, sizeof found, "SUCCEEDED %d", fd);
  say("descriptors of the builder", *found ? found : "none");
  refused("take a descriptor of pid 1", syscall(438, syscall(434, 1, 0), 0, 0));
  refused("read a key of the caller's session", syscall(SYS_keyctl, 11, number("HOST_KEY"), buffer, sizeof buffer));
  refused("add a key", syscall(SYS_add_key, "user", "x", "x", 1, -3));
  refused("ask for a key", syscall(SYS_request_key, "user", "layerbuild-canary", NULL, 0));
  refused("System V shared memory of the machine", shmget((key_t)number("SHM_KEY"), 0, 0));
  refused("a POSIX message queue of the machine", mq_open("/layerbuild-canary", O_RDONLY));
  opened("POSIX shared memory of the machine", "/dev/shm/layerbuild-canary", O_RDONLY);
  refused("type into the caller's terminal", ioctl(1, TIOCSTI, "x"));
  opened("the caller's terminal", "/dev/tty", O_RDWR);
  say("the caller's environment", getenv("HOST_SECRET") ? "SUCCEEDED" : "none");
}

/* -- network */

static void network(void) {
  struct sockaddr_un abstract = {.sun_family = AF_UNIX};
  size_t length = strlen(text("ABSTRACT"));
  memcpy(abstract.sun_path + 1, text("ABSTRACT"), length);
  int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  refused("an abstract socket of the machine",
          connect(fd, (struct sockaddr *)&abstract, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + length)));
  struct sockaddr_un in_context = {.sun_family = AF_UNIX, .sun_path = "/mounted/context/socket"};
  fd = socket(AF_UNIX, SOCK_STREAM, 0);
  refused("a socket that lies in the context", connect(fd, (struct sockaddr *)&in_context, sizeof in_context));
  refused("an address family for virtual machines", socket(40, SOCK_STREAM, 0));
  refused("the kernel's cryptography", socket(38, SOCK_SEQPACKET, 0));
  struct ifreq request = {.ifr_name = "lo", .ifr_flags = 0};
  refused("take the loopback down", ioctl(socket(AF_INET, SOCK_DGRAM, 0), SIOCSIFFLAGS, &request));
}

/* What the kernel answers to a request of RTNETLINK: an error, or 0. */
static long asked(unsigned short kind, unsigned short flags, const void *body, size_t size) {
  struct {
    struct nlmsghdr head;
    char body[64];
  } request = {.head = {(uint32_t)(NLMSG_HDRLEN + size), kind, (uint16_t)(NLM_F_REQUEST | NLM_F_ACK | flags), 1, 0}};
  memcpy(request.body, body, size);
  struct {
    struct nlmsghdr head;
    struct nlmsgerr error;
    char rest[256];
  } answer = {0};
  int fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
  if (fd < 0 || send(fd, &request, request.head.nlmsg_len, 0) < 0 || recv(fd, &answer, sizeof answer, 0) < 0) return -1;
  close(fd);
  errno = -answer.error.error;
  return errno ? -1 : 0;
}

static void settings_of_network(void) {
  struct ifinfomsg down = {.ifi_family = AF_UNSPEC, .ifi_index = 1, .ifi_change = IFF_UP};
  refused("take the loopback down by netlink", asked(RTM_NEWLINK, 0, &down, sizeof down));
  struct {
    struct rtmsg route;
    struct rtattr head;
    uint32_t interface;
  } route = {{AF_INET, .rtm_table = RT_TABLE_MAIN, .rtm_protocol = RTPROT_STATIC, .rtm_scope = RT_SCOPE_LINK,
              .rtm_type = RTN_UNICAST}, {8, RTA_OIF}, 1};
  refused("another route", asked(RTM_NEWROUTE, NLM_F_CREATE, &route, sizeof route));
  struct sockaddr_nl everybody = {.nl_family = AF_NETLINK, .nl_groups = 2};
  int fd = socket(AF_NETLINK, SOCK_RAW, 15); /* NETLINK_KOBJECT_UEVENT */
  refused("speak to the machine's udev", sendto(fd, "add@/x", 7, 0, (struct sockaddr *)&everybody, sizeof everybody));
  int mark = 1;
  fd = socket(AF_INET, SOCK_DGRAM, 0);
  refused("a mark that the firewall trusts", setsockopt(fd, SOL_SOCKET, SO_MARK, &mark, sizeof mark));
  refused("an address of somebody else", setsockopt(fd, IPPROTO_IP, 19, &mark, sizeof mark)); /* IP_TRANSPARENT */
}

static int group_of(int protocol) {
  struct sockaddr_nl one = {.nl_family = AF_NETLINK, .nl_groups = 1};
  int fd = socket(AF_NETLINK, SOCK_RAW, protocol);
  return fd < 0 ? -1 : bind(fd, (struct sockaddr *)&one, sizeof one);
}

static void shared_network(void) {
  refused("listen to the machine's audit", group_of(9));
  refused("listen to the machine's firewall", group_of(12));
  refused("packets past the kernel", socket(44, SOCK_RAW, 0)); /* AF_XDP */
  settings_of_network();
  refused("listen to the machine's packets", socket(AF_PACKET, SOCK_RAW, htons(3)));
  refused("listen to the machine's connections", socket(AF_INET, SOCK_RAW, IPPROTO_TCP));
}

static void isolated_network(void) {
  struct sockaddr_in loopback = {.sin_family = AF_INET, .sin_port = htons((uint16_t)number("PORT"))};
  loopback.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  refused("a service on the machine's loopback", connect(fd, (struct sockaddr *)&loopback, sizeof loopback));
  loopback.sin_addr.s_addr = inet_addr("192.0.2.1");
  fd = socket(AF_INET, SOCK_STREAM, 0);
  refused("another machine", connect(fd, (struct sockaddr *)&loopback, sizeof loopback));
  struct if_nameindex *interfaces = if_nameindex();
  int others = 0;
  for (struct if_nameindex *each = interfaces; each && each->if_index; each++)
    others += strcmp(each->if_name, "lo") != 0 && strncmp(each->if_name, "sit", 3) != 0;
  say("interfaces besides the loopback", others ? "SUCCEEDED" : "none");
}

int main(int argc, char **argv) {
  setvbuf(stdout, NULL, _IONBF, 0);
  const struct {
    const char *name;
    void (*attempt)(void);
  } groups[] = {
      {"mounts", mounts},         {"paths", paths},     {"devices", devices}, {"kernel", kernel},
      {"namespaces", namespaces}, {"processes", processes}, {"network", network}, {"isolated-network", isolated_network},
      {"chroot", leave_chroot},    {"disk", disk},        {"shared-network", shared_network},
      {"others", others_namespaces},
  };
  for (int each = 1; each < argc; each++)
    for (size_t group = 0; group < sizeof groups / sizeof *groups; group++)
      if (strcmp(argv[each], groups[group].name) == 0) groups[group].attempt();
  return 0;
}
