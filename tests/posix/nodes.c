// mknod(2), sockets, and flags of inodes.
#include "posix.h"
#include <linux/fs.h>

static void one(const char *name, const char *path, mode_t mode, dev_t device)
{
    long returned = mknod(path, mode, device);
    int error = errno;
    struct stat found;
    if (returned < 0)
        say(name, "%s", error_name(error));
    else if (lstat(path, &found) < 0)
        say(name, "made, then %s", error_name(errno));
    else
        say(name, "ok, type %o mode %o device %u:%u owner %u:%u", found.st_mode & S_IFMT, found.st_mode & 07777, major(found.st_rdev),
            minor(found.st_rdev), found.st_uid, found.st_gid);
}

void special_files(void)
{
    one("regular", "regular", S_IFREG | 0640, 0);
    one("zero_type", "zero", 0600, 0);
    one("fifo", "fifo", S_IFIFO | 0644, 0);
    one("socket", "socket", S_IFSOCK | 0755, 0);
    one("character", "character", S_IFCHR | 0600, makedev(1, 3));
    one("block", "block", S_IFBLK | 0600, makedev(7, 0));
    one("large_device", "large", S_IFCHR | 0600, makedev(500, 70000));
    one("whiteout", "whiteout", S_IFCHR, makedev(0, 0));
    one("bits", "bits", S_IFIFO | 07777, 0);
    one("directory", "directory", S_IFDIR | 0700, 0);
    one("link", "link", S_IFLNK | 0700, 0);
    one("garbage", "garbage", 0130000 | 0700, 0);
    one("existing", "regular", S_IFREG | 0640, 0);
    one("missing_parent", "missing/x", S_IFIFO | 0600, 0);
    one("slash", "slash/", S_IFREG | 0600, 0);
    umask(027);
    one("umask", "masked", S_IFIFO | 0666, 0);
    umask(0);
    make_directory("open", 0777);
    make_directory("closed", 0755);
    AS(1000, 1000) {
        one("user_fifo", "open/fifo", S_IFIFO | 0644, 0);
        one("user_socket", "open/socket", S_IFSOCK | 0644, 0);
        one("user_regular", "open/regular", S_IFREG | 0644, 0);
        one("user_character", "open/character", S_IFCHR | 0644, makedev(1, 3));
        one("user_block", "open/block", S_IFBLK | 0644, makedev(7, 0));
        one("user_whiteout", "open/whiteout", S_IFCHR, makedev(0, 0));
        one("user_refused", "closed/refused", S_IFIFO | 0644, 0);
    }
    chmod("character", 0666);
    int null = open("character", O_RDWR);
    opened("null_open", null);
    result("null_write", write(null, "gone", 4));
    result("null_read", read(null, &(char){0}, 1));
    opened("socket_open", open("socket", O_RDWR));
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), peer = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_un address = {AF_UNIX, "bound"};
    umask(077);
    result("bind", bind(listener, (struct sockaddr *)&address, sizeof address));
    umask(0);
    state("bind_state", "bound");
    result("bind_again", bind(peer, (struct sockaddr *)&address, sizeof address));
    listen(listener, 1);
    result("connect", connect(peer, (struct sockaddr *)&address, sizeof address));
    struct sockaddr_un dead = {AF_UNIX, "socket"};
    result("connect_to_dead", connect(socket(AF_UNIX, SOCK_STREAM, 0), (struct sockaddr *)&dead, sizeof dead));
    result("socket_rename", rename("bound", "rebound"));
    result("socket_unlink", unlink("rebound"));

    // Flags of inodes (chattr).
    make("flagged", "x", 0644);
    int file = open("flagged", O_RDWR), flags = 0;
    result("flags_get", ioctl(file, FS_IOC_GETFLAGS, &flags));
    flags |= FS_APPEND_FL;
    result("flags_append", ioctl(file, FS_IOC_SETFLAGS, &flags));
    int now = 0;
    ioctl(file, FS_IOC_GETFLAGS, &now);
    say("flags_append_get", "%s", now & FS_APPEND_FL ? "set" : "not set");
    opened("append_only_write", open("flagged", O_WRONLY));
    opened("append_only_append", open("flagged", O_WRONLY | O_APPEND));
    opened("append_only_truncate", open("flagged", O_WRONLY | O_APPEND | O_TRUNC));
    result("append_only_unlink", unlink("flagged"));
    flags = (flags & ~FS_APPEND_FL) | FS_IMMUTABLE_FL;
    result("flags_immutable", ioctl(file, FS_IOC_SETFLAGS, &flags));
    opened("immutable_write", open("flagged", O_WRONLY));
    result("immutable_chmod", chmod("flagged", 0600));
    result("immutable_link", link("flagged", "hard"));
    result("immutable_rename", rename("flagged", "renamed"));
    result("immutable_unlink", unlink("flagged"));
    flags &= ~FS_IMMUTABLE_FL;
    result("flags_clear", ioctl(file, FS_IOC_SETFLAGS, &flags));
    opened("cleared_write", open("flagged", O_WRONLY));
    make("untouched", "x", 0644);
    AS(1000, 1000) {
        int mine = open("untouched", O_RDONLY), bits = FS_IMMUTABLE_FL;
        result("flags_set_by_user", ioctl(mine, FS_IOC_SETFLAGS, &bits));
    }
    struct fsxattr extended;
    result("fsxattr_get", ioctl(file, FS_IOC_FSGETXATTR, &extended));
}
