// rename(2) and renameat2(2).
#include "posix.h"

static long rename2(const char *from, const char *to, unsigned flags)
{
    return syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, flags);
}

// Everything that the checks rename, made anew for each.
static void scene(void)
{
    discard("scene");
    make_directory("scene", 0755);
    need("chdir", chdir("scene"));
    make("file", "file", 0644);
    make("other", "other", 0600);
    make_directory("empty", 0755);
    make_directory("full", 0755);
    make("full/inside", "inside", 0644);
    make_directory("full/sub", 0755);
    need("symlink", symlink("file", "link"));
    need("symlink", symlink("empty", "dirlink"));
    need("symlink", symlink("nowhere", "dangling"));
    need("link", link("file", "hard"));
    need("mkfifo", mkfifo("fifo", 0600));
}

static void one(const char *name, const char *from, const char *to, unsigned flags)
{
    scene();
    struct stat old, now;
    bool known = lstat(from, &old) == 0;
    long returned = flags == 0 ? rename(from, to) : rename2(from, to, flags);
    int error = errno;
    char text[256];
    bool there = lstat(to, &now) == 0;
    snprintf(text, sizeof text, "%s; source %s, target %s", returned ? error_name(error) : "ok", lstat(from, &old) ? "gone" : "there",
             there ? "there" : "missing");
    say(name, "%s", text);
    if (returned == 0 && known && there) {
        snprintf(text, sizeof text, "%s_state", name);
        state(text, to);
    }
    need("chdir", chdir(".."));
}

static void targets(void)
{
    one("to_new", "file", "new", 0);
    one("over_file", "file", "other", 0);
    one("over_itself", "file", "file", 0);
    one("over_hard_link", "file", "hard", 0);
    one("over_directory", "file", "empty", 0);
    one("over_full_directory", "file", "full", 0);
    one("over_link", "file", "link", 0);
    one("over_dirlink", "file", "dirlink", 0);
    one("over_fifo", "file", "fifo", 0);
    one("link_to_new", "link", "new", 0);
    one("link_over_target", "link", "file", 0);
    one("dangling_to_new", "dangling", "new", 0);
    one("fifo_to_new", "fifo", "new", 0);
    one("directory_to_new", "full", "new", 0);
    one("directory_over_empty", "full", "empty", 0);
    one("directory_over_full", "empty", "full", 0);
    one("directory_over_file", "empty", "file", 0);
    one("directory_over_dirlink", "full", "dirlink", 0);
    one("directory_over_itself", "full", "full", 0);
    one("into_itself", "full", "full/sub/new", 0);
    one("into_itself_direct", "full", "full/new", 0);
    one("over_ancestor", "full/sub", "full", 0);
    one("file_over_its_parent", "full/inside", "full", 0);
    one("missing", "missing", "new", 0);
    one("into_missing", "file", "missing/new", 0);
    one("into_file", "file", "other/new", 0);
    one("into_directory", "file", "empty/new", 0);
    one("directory_into_directory", "full", "empty/new", 0);
    one("slash_file", "file/", "new", 0);
    one("slash_file_target", "file", "new/", 0);
    one("slash_directory", "full/", "new/", 0);
    one("slash_dirlink", "dirlink/", "new", 0);
    one("dot", "full/.", "new", 0);
    one("dotdot", "full/sub/..", "new", 0);
    one("to_dot", "full", "empty/.", 0);
    one("to_dotdot", "empty", "full/..", 0);
    one("empty_name", "", "new", 0);
}

static void with_flags(void)
{
    one("noreplace_new", "file", "new", RENAME_NOREPLACE);
    one("noreplace_existing", "file", "other", RENAME_NOREPLACE);
    one("noreplace_itself", "file", "file", RENAME_NOREPLACE);
    one("noreplace_dangling", "file", "dangling", RENAME_NOREPLACE);
    one("noreplace_directory", "full", "empty", RENAME_NOREPLACE);
    one("noreplace_directory_new", "full", "new", RENAME_NOREPLACE);
    one("exchange_files", "file", "other", RENAME_EXCHANGE);
    one("exchange_file_directory", "file", "full", RENAME_EXCHANGE);
    one("exchange_directories", "empty", "full", RENAME_EXCHANGE);
    one("exchange_link", "link", "full", RENAME_EXCHANGE);
    one("exchange_missing", "file", "missing", RENAME_EXCHANGE);
    one("exchange_missing_source", "missing", "file", RENAME_EXCHANGE);
    one("exchange_parent", "full/sub", "full", RENAME_EXCHANGE);
    one("exchange_child", "full", "full/sub", RENAME_EXCHANGE);
    one("exchange_hard_links", "file", "hard", RENAME_EXCHANGE);
    one("exchange_across_directories", "empty", "full/sub", RENAME_EXCHANGE);
    one("exchange_file_with_subdirectory", "file", "full/sub", RENAME_EXCHANGE);
    one("exchange_and_noreplace", "file", "other", RENAME_EXCHANGE | RENAME_NOREPLACE);
    one("exchange_and_whiteout", "file", "other", RENAME_EXCHANGE | RENAME_WHITEOUT);
    one("whiteout", "file", "new", RENAME_WHITEOUT);
    one("whiteout_over", "file", "other", RENAME_WHITEOUT);
    one("whiteout_directory", "full", "new", RENAME_WHITEOUT);
    one("whiteout_noreplace", "file", "new", RENAME_WHITEOUT | RENAME_NOREPLACE);
    one("flag_8", "file", "new", 8);
    one("flag_top", "file", "new", 0x80000000);

    scene();
    rename2("file", "new", RENAME_WHITEOUT);
    struct stat found;
    lstat("file", &found);
    say("whiteout_is", "type %o device %u:%u", found.st_mode & S_IFMT, major(found.st_rdev), minor(found.st_rdev));
    rename2("full/sub", "other", RENAME_EXCHANGE);
    state("exchange_links_parent", ".");
    state("exchange_links_full", "full");
    content("exchange_content", "full/sub");
    need("chdir", chdir(".."));
}

static void effects(void)
{
    scene();
    state("links_parent_before", ".");
    need("rename", rename("full/sub", "sub"));
    state("links_parent_after_moving_up", ".");
    state("links_old_parent", "full");
    struct stat parent, dotdot;
    stat(".", &parent);
    stat("sub/..", &dotdot);
    say("dotdot_follows", "%s", parent.st_ino == dotdot.st_ino ? "same" : "differs");
    need("rename", rename("sub", "empty"));
    state("links_parent_after_replacing", ".");

    struct stat old, now;
    stat("file", &old);
    int file = open("file", O_RDWR);
    need("rename", rename("file", "full/renamed"));
    fstat(file, &now);
    say("open_file_inode", "%s", old.st_ino == now.st_ino ? "same" : "differs");
    stat("full/renamed", &now);
    say("renamed_inode", "%s", old.st_ino == now.st_ino ? "same" : "differs");
    write(file, "F", 1);
    content("open_file_writes", "full/renamed");
    int victim = open("other", O_RDWR);
    need("rename", rename("full/renamed", "other"));
    fstate("replaced_state", victim);
    fcontent("replaced_content", victim);
    content("replacing_content", "other");

    int directory = open("full", O_RDONLY | O_DIRECTORY);
    need("chdir", chdir("full"));
    need("rename", rename("../full", "../walked"));
    char path[4096], *last = getcwd(path, sizeof path) ? strrchr(path, '/') : NULL;
    say("cwd_follows", "%s", last ? last : error_name(errno));
    opened("cwd_open", open("inside", O_RDONLY));
    opened("cwd_create", openat(directory, "created", O_CREAT | O_RDWR, 0600));
    need("chdir", chdir(".."));
    state("created_in_renamed", "walked/created");

    // A directory's ".." changes, which needs permission to write the directory itself.
    make_directory("outer", 0777);
    make_directory("outer/notwritable", 0755);
    make_directory("outer2", 0777);
    AS(1000, 1000) {
        result("directory_not_writable_same_parent", rename("outer/notwritable", "outer/x"));
        result("directory_not_writable_other_parent", rename("outer/x", "outer2/x"));
    }
    AS(1000, 1000) {
        result("source_not_writable", rename("other", "outer/other"));
        make("outer/mine", "", 0600);
        result("target_not_writable", rename("outer/mine", "mine"));
        result("whiteout_as_user", rename2("outer/mine", "outer/white", RENAME_WHITEOUT));
    }
    int from = open("outer", O_PATH), to = open("outer2", O_PATH);
    make("outer/at", "at", 0600);
    result("renameat", renameat(from, "at", to, "at2"));
    content("renameat_content", "outer2/at2");
    result("renameat_bad_source", renameat(99, "at", to, "at2"));
    result("renameat_file_source", renameat(victim, "at", to, "at2"));
    char longest[300];
    memset(longest, 'n', 255);
    longest[255] = 0;
    result("longest", rename("other", longest));
    longest[255] = 'n';
    longest[256] = 0;
    result("too_long", rename("hard", longest));
    need("chdir", chdir(".."));
    for (int i = 0; i < 50; i++) {
        char a[16], b[16];
        snprintf(a, sizeof a, "turn%d", i);
        snprintf(b, sizeof b, "turn%d", i + 1);
        if (i == 0)
            make(a, "turned", 0600);
        need("rename", rename(a, b));
    }
    content("fifty_times", "turn50");
    make("p", "p", 0600);
    make("q", "q", 0600);
    for (int i = 0; i < 21; i++)
        need("exchange", rename2("p", "q", RENAME_EXCHANGE));
    content("exchanged_odd_times", "p");
}

void renames(void)
{
    targets();
    with_flags();
    effects();
}
