using System.Diagnostics;
using System.Globalization;
using System.Reflection;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Text;
using System.Text.RegularExpressions;
using System.Xml.Linq;
using Causeway.Fuse;
using Causeway.Linux;
using Causeway.Virtio;

namespace Causeway.Tests.Linux;

/// <summary>
/// Asks the C compiler and the system's headers about every structure and constant that we copied from them. Names of
/// structures and their fields are in <see cref="Structures"/>; the C name of a constant is the first word of its
/// documentation (<c>FUSE_ASYNC_READ: several READs ...</c>), which keeps that honest, too.
/// </summary>
public sealed partial class LayoutTests
{
    /// <summary>C# type, C type, C# field = C field; "size" where the sizes agree as well.</summary>
    private const string Structures =
        """
        Causeway.Linux.IoVector             struct iovec            size Address=iov_base Length=iov_len
        Causeway.Linux.RecordLock           struct flock            size Type=l_type Whence=l_whence Start=l_start Length=l_len ProcessId=l_pid
        Causeway.Linux.SignalSet            sigset_t                size
        Causeway.Linux.SignalAction         struct sigaction        size Handler=sa_handler Mask=sa_mask Flags=sa_flags Restorer=sa_restorer
        Causeway.Linux.ExtendedFlags        struct fsxattr          size Flags=fsx_xflags ExtentSize=fsx_extsize Extents=fsx_nextents ProjectId=fsx_projid CopyExtentSize=fsx_cowextsize
        Causeway.Linux.EpollEvent           struct epoll_event      size Events=events Data=data
        Causeway.Linux.PollDescriptor       struct pollfd           size Descriptor=fd _events=events _returned=revents
        Causeway.Linux.InotifyEvent         struct inotify_event    size Watch=wd Events=mask Cookie=cookie NameLength=len
        Causeway.Linux.FanotifyEvent        struct fanotify_event_metadata size Length=event_len Version=vers Reserved=reserved MetadataLength=metadata_len Events=mask Descriptor=fd ProcessId=pid
        Causeway.Linux.FanotifyInfoHeader   struct fanotify_event_info_header size Type=info_type Padding=pad Length=len
        Causeway.Linux.TimeSpecification    struct timespec         size Seconds=tv_sec Nanoseconds=tv_nsec
        Causeway.Linux.ResourceLimit        struct rlimit           size Current=rlim_cur Maximum=rlim_max
        Causeway.Linux.StatxTime            struct statx_timestamp  size Seconds=tv_sec Nanoseconds=tv_nsec
        Causeway.Linux.StatxBuffer          struct statx            size Mask=stx_mask BlockSize=stx_blksize Attributes=stx_attributes LinkCount=stx_nlink UserId=stx_uid GroupId=stx_gid Mode=stx_mode Inode=stx_ino Size=stx_size Blocks=stx_blocks AttributesMask=stx_attributes_mask AccessTime=stx_atime BirthTime=stx_btime ChangeTime=stx_ctime ModificationTime=stx_mtime NodeDeviceMajor=stx_rdev_major NodeDeviceMinor=stx_rdev_minor DeviceMajor=stx_dev_major DeviceMinor=stx_dev_minor MountId=stx_mnt_id
        Causeway.Linux.StatfsBuffer         struct statfs           size Type=f_type BlockSize=f_bsize Blocks=f_blocks BlocksFree=f_bfree BlocksAvailable=f_bavail Files=f_files FilesFree=f_ffree FileSystemId=f_fsid NameLength=f_namelen FragmentSize=f_frsize Flags=f_flags
        Causeway.Linux.KernelFileHandle     struct file_handle      Length=handle_bytes Type=handle_type _bytes=f_handle
        Causeway.Linux.UnixAddress          struct sockaddr_un      size _family=sun_family _path=sun_path
        Causeway.Linux.Libc+MessageHeader   struct msghdr           size Name=msg_name NameLength=msg_namelen Vectors=msg_iov VectorCount=msg_iovlen Control=msg_control ControlLength=msg_controllen Flags=msg_flags
        Causeway.Linux.Libc+GroupEntry      struct group            size Name=gr_name Password=gr_passwd GroupId=gr_gid Members=gr_mem
        Causeway.Linux.Libc+ControlHeader   struct cmsghdr          size Length=cmsg_len Level=cmsg_level Type=cmsg_type
        Causeway.Linux.Files+OpenHow        struct open_how         size Flags=flags Mode=mode Resolve=resolve
        Causeway.Linux.Credentials+CapabilityHeader  struct __user_cap_header_struct  size Version=version ProcessId=pid
        Causeway.Linux.Credentials+CapabilityData    struct __user_cap_data_struct    size Effective=effective Permitted=permitted Inheritable=inheritable
        Causeway.Linux.FilterInstruction    struct sock_filter      size Code=code IfTrue=jt IfFalse=jf Operand=k
        Causeway.Linux.Seccomp+FilterProgram        struct sock_fprog       size Length=len Instructions=filter
        Causeway.Linux.Landlock+PathAttributes      struct landlock_path_beneath_attr  size Rights=allowed_access Directory=parent_fd
        Causeway.Linux.MountNamespace+MountAttributeChange  struct mount_attr       size Set=attr_set Clear=attr_clr Propagation=propagation UserNamespace=userns_fd
        Causeway.Linux.IoUring+Parameters   struct io_uring_params  size SubmissionEntries=sq_entries CompletionEntries=cq_entries Flags=flags ThreadProcessor=sq_thread_cpu ThreadIdle=sq_thread_idle Features=features Workers=wq_fd Submission=sq_off Completion=cq_off
        Causeway.Linux.IoUring+SubmissionOffsets struct io_sqring_offsets size Head=head Tail=tail Mask=ring_mask Count=ring_entries Flags=flags Dropped=dropped Array=array
        Causeway.Linux.IoUring+CompletionOffsets struct io_cqring_offsets size Head=head Tail=tail Mask=ring_mask Count=ring_entries Overflow=overflow Entries=cqes Flags=flags
        Causeway.Linux.IoUring+SubmissionEntry struct io_uring_sqe  Opcode=opcode Flags=flags Priority=ioprio Descriptor=fd Offset=off Address=addr Length=len OperationFlags=poll32_events UserData=user_data BufferIndex=buf_index Personality=personality FileIndex=file_index Address3=addr3
        Causeway.Linux.IoUring+CompletionEntry struct io_uring_cqe  size UserData=user_data Result=res Flags=flags
        Causeway.Linux.IoUring+Restriction   struct io_uring_restriction size Kind=opcode Operation=sqe_op Reserved0=resv
        Causeway.Linux.IoUring+WaitArgument struct io_uring_getevents_arg size SignalMask=sigmask SignalMaskSize=sigmask_sz Time=ts
        Causeway.Virtio.SplitDescriptor     struct vring_desc       size Address=addr Length=len Flags=flags Next=next
        Causeway.Virtio.UsedElement         struct vring_used_elem  size Id=id Length=len
        Causeway.Fuse.FuseInHeader          struct fuse_in_header   size Length=len Opcode=opcode Unique=unique NodeId=nodeid UserId=uid GroupId=gid ProcessId=pid ExtensionLength=total_extlen
        Causeway.Fuse.FuseOutHeader         struct fuse_out_header  size Length=len Error=error Unique=unique
        Causeway.Fuse.FuseInitIn            struct fuse_init_in     size Major=major Minor=minor MaxReadahead=max_readahead Flags=flags Flags2=flags2 VersionTableMagic=unused[0] VersionTableAbi=unused[1]
        Causeway.Fuse.FuseRingHeader        struct fuse_uring_req_header size Header=in_out Argument=op_in Entry=ring_ent_in_out
        Causeway.Fuse.FuseRingEntry         struct fuse_uring_ent_in_out size Flags=flags CommitId=commit_id PayloadSize=payload_sz
        Causeway.Fuse.FuseRingCommand       struct fuse_uring_cmd_req size Flags=flags CommitId=commit_id Queue=qid
        Causeway.Fuse.FuseInitOut           struct fuse_init_out    size Major=major Minor=minor MaxReadahead=max_readahead Flags=flags MaxBackground=max_background CongestionThreshold=congestion_threshold MaxWrite=max_write TimeGranularity=time_gran MaxPages=max_pages MapAlignment=map_alignment Flags2=flags2 MaxStackDepth=max_stack_depth RequestTimeout=request_timeout
        Causeway.Fuse.FuseAttributes        struct fuse_attr        size Inode=ino Size=size Blocks=blocks AccessTime=atime ModificationTime=mtime ChangeTime=ctime AccessTimeNanoseconds=atimensec ModificationTimeNanoseconds=mtimensec ChangeTimeNanoseconds=ctimensec Mode=mode LinkCount=nlink UserId=uid GroupId=gid Device=rdev BlockSize=blksize Flags=flags
        Causeway.Fuse.FuseAttrOut           struct fuse_attr_out    size AttributeLifetimeSeconds=attr_valid AttributeLifetimeNanoseconds=attr_valid_nsec Attributes=attr
        Causeway.Fuse.NodeEntry             struct fuse_entry_out   size NodeId=nodeid Generation=generation EntryLifetimeSeconds=entry_valid AttributeLifetimeSeconds=attr_valid EntryLifetimeNanoseconds=entry_valid_nsec AttributeLifetimeNanoseconds=attr_valid_nsec Attributes=attr
        Causeway.Fuse.FuseOpenOut           struct fuse_open_out    size Handle=fh Flags=open_flags BackingId=backing_id
        Causeway.Fuse.FuseCreateOut         struct create_out       size Entry=entry Open=open
        Causeway.Fuse.FuseStatfsOut         struct fuse_statfs_out  size Blocks=st.blocks BlocksFree=st.bfree BlocksAvailable=st.bavail Files=st.files FilesFree=st.ffree BlockSize=st.bsize NameLength=st.namelen FragmentSize=st.frsize
        Causeway.Fuse.FuseOpenIn            struct fuse_open_in     size Flags=flags OpenFlags=open_flags
        Causeway.Fuse.FuseCreateIn          struct fuse_create_in   size Flags=flags Mode=mode Umask=umask OpenFlags=open_flags
        Causeway.Fuse.FuseReleaseIn         struct fuse_release_in  size Handle=fh Flags=flags ReleaseFlags=release_flags LockOwner=lock_owner
        Causeway.Fuse.FuseFlushIn           struct fuse_flush_in    size Handle=fh LockOwner=lock_owner
        Causeway.Fuse.FuseReadIn            struct fuse_read_in     size Handle=fh Offset=offset Size=size ReadFlags=read_flags LockOwner=lock_owner Flags=flags
        Causeway.Fuse.FuseWriteIn           struct fuse_write_in    size Handle=fh Offset=offset Size=size WriteFlags=write_flags LockOwner=lock_owner Flags=flags
        Causeway.Fuse.FuseWriteOut          struct fuse_write_out   size Size=size
        Causeway.Fuse.FuseFsyncIn           struct fuse_fsync_in    size Handle=fh Flags=fsync_flags
        Causeway.Fuse.FuseFallocateIn       struct fuse_fallocate_in size Handle=fh Offset=offset Length=length Mode=mode
        Causeway.Fuse.FuseLseekIn           struct fuse_lseek_in    size Handle=fh Offset=offset Whence=whence
        Causeway.Fuse.FuseLseekOut          struct fuse_lseek_out   size Offset=offset
        Causeway.Fuse.FuseCopyFileRangeIn   struct fuse_copy_file_range_in size SourceHandle=fh_in SourceOffset=off_in DestinationNode=nodeid_out DestinationHandle=fh_out DestinationOffset=off_out Length=len Flags=flags
        Causeway.Fuse.FuseCopyFileRangeOut  struct fuse_copy_file_range_out size BytesCopied=bytes_copied
        Causeway.Fuse.FuseLkIn              struct fuse_lk_in       size Handle=fh Owner=owner Start=lk.start End=lk.end Type=lk.type ProcessId=lk.pid Flags=lk_flags
        Causeway.Fuse.FuseLkOut             struct fuse_lk_out      size Start=lk.start End=lk.end Type=lk.type ProcessId=lk.pid
        Causeway.Fuse.FuseIoctlIn           struct fuse_ioctl_in    size Handle=fh Flags=flags Command=cmd Argument=arg InputSize=in_size OutputSize=out_size
        Causeway.Fuse.FuseIoctlOut          struct fuse_ioctl_out   size Result=result Flags=flags InputVectors=in_iovs OutputVectors=out_iovs
        Causeway.Fuse.FuseInterruptIn       struct fuse_interrupt_in size Unique=unique
        Causeway.Fuse.FuseSyncFsIn          struct fuse_syncfs_in   size
        Causeway.Fuse.FuseSetupMappingIn    struct fuse_setupmapping_in size Handle=fh FileOffset=foffset Length=len Flags=flags WindowOffset=moffset
        Causeway.Fuse.FuseRemoveMappingIn   struct fuse_removemapping_in size Count=count
        Causeway.Fuse.FuseRemoveMappingOne  struct fuse_removemapping_one size WindowOffset=moffset Length=len
        Causeway.Fuse.FuseForgetIn          struct fuse_forget_in   size LookupCount=nlookup
        Causeway.Fuse.FuseBatchForgetIn     struct fuse_batch_forget_in size Count=count
        Causeway.Fuse.FuseForgetOne         struct fuse_forget_one  size NodeId=nodeid LookupCount=nlookup
        Causeway.Fuse.FuseNotifyInvalInodeOut struct fuse_notify_inval_inode_out size NodeId=ino Offset=off Length=len
        Causeway.Fuse.FuseNotifyInvalEntryOut struct fuse_notify_inval_entry_out size Parent=parent NameLength=namelen Flags=flags
        Causeway.Fuse.FuseNotifyDeleteOut   struct fuse_notify_delete_out size Parent=parent Child=child NameLength=namelen
        Causeway.Fuse.FuseGetAttrIn         struct fuse_getattr_in  size Flags=getattr_flags Handle=fh
        Causeway.Fuse.FuseSetAttrIn         struct fuse_setattr_in  size Valid=valid Handle=fh Size=size LockOwner=lock_owner AccessTime=atime ModificationTime=mtime ChangeTime=ctime AccessTimeNanoseconds=atimensec ModificationTimeNanoseconds=mtimensec ChangeTimeNanoseconds=ctimensec Mode=mode UserId=uid GroupId=gid
        Causeway.Fuse.FuseMknodIn           struct fuse_mknod_in    size Mode=mode Device=rdev Umask=umask
        Causeway.Fuse.FuseMkdirIn           struct fuse_mkdir_in    size Mode=mode Umask=umask
        Causeway.Fuse.FuseRenameIn          struct fuse_rename_in   size NewParent=newdir
        Causeway.Fuse.FuseRename2In         struct fuse_rename2_in  size NewParent=newdir Flags=flags
        Causeway.Fuse.FuseLinkIn            struct fuse_link_in     size OldNode=oldnodeid
        Causeway.Fuse.FuseAccessIn          struct fuse_access_in   size Mask=mask
        Causeway.Fuse.FuseSetXattrIn        struct fuse_setxattr_in size Size=size Flags=flags SetXattrFlags=setxattr_flags
        Causeway.Fuse.FuseGetXattrIn        struct fuse_getxattr_in size Size=size
        Causeway.Fuse.FuseGetXattrOut       struct fuse_getxattr_out size Size=size
        Causeway.Fuse.FuseStatxIn           struct fuse_statx_in    size Flags=getattr_flags Handle=fh SyncFlags=sx_flags Mask=sx_mask
        Causeway.Fuse.FuseStatxTime         struct fuse_sx_time     size Seconds=tv_sec Nanoseconds=tv_nsec
        Causeway.Fuse.FuseStatx             struct fuse_statx       size Mask=mask BlockSize=blksize Attributes=attributes LinkCount=nlink UserId=uid GroupId=gid Mode=mode Inode=ino Size=size Blocks=blocks AttributesMask=attributes_mask AccessTime=atime BirthTime=btime ChangeTime=ctime ModificationTime=mtime DeviceMajor=rdev_major DeviceMinor=rdev_minor FileSystemMajor=dev_major FileSystemMinor=dev_minor
        Causeway.Fuse.FuseStatxOut          struct fuse_statx_out   size AttributeLifetimeSeconds=attr_valid AttributeLifetimeNanoseconds=attr_valid_nsec Flags=flags Statx=stat
        """;

    /// <summary>
    /// What the headers of Debian 12 (Linux 6.1, FUSE 7.38 from a newer package) do not have. Anything else that a header
    /// does not know is a mistake of ours. With newer headers these are checked as well.
    /// </summary>
    private static readonly string[] s_newerThanHeaders =
    [
        "LANDLOCK_ACCESS_FS_TRUNCATE", "LANDLOCK_ACCESS_FS_IOCTL_DEV", "LANDLOCK_ACCESS_NET_BIND_TCP",
        "LANDLOCK_ACCESS_NET_CONNECT_TCP", "FUSE_CREATE_SUPP_GROUP", "FUSE_STATX", "FUSE_COPY_FILE_RANGE_64", "FUSE_DIRECT_IO_ALLOW_MMAP",
        "FUSE_PASSTHROUGH", "FUSE_NO_EXPORT_SUPPORT", "FUSE_HAS_RESEND", "FUSE_ALLOW_IDMAP", "FUSE_OVER_IO_URING", "FUSE_REQUEST_TIMEOUT",
        "FUSE_HAS_IO_URING_BUFPOOL", "FUSE_NOTIFY_RESEND", "FUSE_NOTIFY_INC_EPOCH", "FUSE_NOTIFY_PRUNE", "FOPEN_PASSTHROUGH", "STATX_MNT_ID_UNIQUE",
        "FUSE_IO_URING_CMD_REGISTER", "FUSE_IO_URING_CMD_COMMIT_AND_FETCH", "struct fuse_uring_req_header", "struct fuse_uring_ent_in_out",
        "struct fuse_uring_cmd_req", "struct fuse_statx", "struct fuse_statx_in", "struct fuse_statx_out", "struct fuse_sx_time",
        "struct fuse_copy_file_range_out", "struct fuse_init_out.max_stack_depth",
        "struct fuse_init_out.request_timeout", "struct fuse_open_out.backing_id",
    ];

    /// <summary>The C library says 0 on 64-bit machines, where it makes no difference to it; the kernel has a bit.</summary>
    private static readonly string[] s_hiddenByLibrary = ["O_LARGEFILE"];

    /// <summary>Headers that are included where they exist.</summary>
    private static readonly string[] s_headers =
    [
        "stdint.h", "stddef.h", "stdio.h", "errno.h", "fcntl.h", "grp.h", "poll.h", "sched.h", "signal.h", "time.h", "unistd.h",
        "sys/epoll.h", "sys/eventfd.h", "sys/fanotify.h", "sys/file.h", "sys/inotify.h", "sys/mman.h", "sys/mount.h",
        "sys/prctl.h", "sys/resource.h", "sys/socket.h", "sys/stat.h", "sys/statfs.h", "sys/uio.h", "sys/un.h",
        "linux/capability.h", "linux/falloc.h", "linux/filter.h", "linux/fs.h", "linux/fuse.h", "linux/io_uring.h",
        "linux/landlock.h",
        "linux/openat2.h", "linux/seccomp.h", "linux/securebits.h", "linux/virtio_config.h", "linux/virtio_fs.h",
        "linux/virtio_ring.h",
    ];

    private readonly Dictionary<string, XDocument> _documentation = [];

    [Fact]
    public void Structures_and_constants_are_those_of_the_system_headers()
    {
        Assert.SkipWhen(FindCompiler() is null, "NOT CHECKED: there is no C compiler (cc); install gcc and libc6-dev");
        List<Probe> probes =
        [
            .. StructureProbes(),
            .. ConstantProbes().Where(probe => !s_hiddenByLibrary.Contains(probe.Expression)),
        ];
        Assert.True(probes.Count > 500, $"only {probes.Count} things to check were found");

        Dictionary<int, long> answers = Ask(probes);
        var wrong = new List<string>();
        var uncovered = new SortedSet<string>(StringComparer.Ordinal);
        for (int i = 0; i < probes.Count; i++)
        {
            if (!answers.TryGetValue(i, out long answer))
            {
                uncovered.Add(probes[i].Expression);
                if (!s_newerThanHeaders.Any(name => probes[i].Concerns(name)))
                {
                    wrong.Add($"{probes[i].Name}: no header knows {probes[i].Expression}");
                }
            }
            else if (answer != probes[i].Expected)
            {
                wrong.Add($"{probes[i].Name}: {probes[i].Expression} is {answer}, not {probes[i].Expected}");
            }
        }

        TestContext.Current.TestOutputHelper?.WriteLine(
            $"{answers.Count} of {probes.Count} checked; not in these headers: {string.Join(", ", uncovered)}");
        Assert.True(wrong.Count == 0, string.Join(Environment.NewLine, wrong));
    }

    [Fact]
    public void Every_structure_of_the_wire_is_in_the_table()
    {
        string[] listed = [.. Structures.Split('\n').Select(line => line.Split(' ')[0])];
        string[] missing =
        [
            .. typeof(FuseInHeader).Assembly.GetExportedTypes()
                .Where(type => type.IsValueType && !type.IsEnum && WireName().IsMatch(type.Name))
                .Select(type => type.FullName!)
                .Except(listed),
        ];
        Assert.Empty(missing);
    }

    [GeneratedRegex("^Fuse.*(In|Out|Header|One|Attributes|Statx|StatxTime)$|^NodeEntry$")]
    private static partial Regex WireName();

    // What is ours lies in reserved space, of which headers differ.
    [GeneratedRegex("^(Padding|Reserved|Spare|Unused|Word|UserAddress)[0-9]*$|^_spare|^VersionTable")]
    private static partial Regex ReservedName();

    [GeneratedRegex("^[A-Z][A-Z0-9]*_[A-Z0-9_]+\\b")]
    private static partial Regex ConstantName();

    [GeneratedRegex("^[^:]*probe\\.c:([0-9]+):[0-9]+: error", RegexOptions.Multiline)]
    private static partial Regex ErrorLine();

    private static Assembly[] Assemblies =>
        [typeof(Errno).Assembly, typeof(FuseOpcode).Assembly, typeof(SplitDescriptor).Assembly];

    private static string? FindCompiler() => (Environment.GetEnvironmentVariable("PATH") ?? "").Split(':')
        .Select(directory => Path.Combine(directory, "cc")).FirstOrDefault(File.Exists);

    private static IEnumerable<Probe> StructureProbes()
    {
        foreach (string line in Structures.Split('\n'))
        {
            string[] words = line.Split(' ', StringSplitOptions.RemoveEmptyEntries);
            Type type = Assemblies.Select(assembly => assembly.GetType(words[0])).FirstOrDefault(found => found is not null)
                ?? throw new InvalidOperationException($"there is no type {words[0]}");
            string name = $"struct {words[2]}";
            string[] fields = words[3..];
            if (fields.Length > 0 && fields[0] == "size")
            {
                yield return new Probe(type.Name, $"sizeof({name})", SizeOf(type));
                fields = fields[1..];
            }

            var named = new HashSet<string>();
            foreach (string[] pair in fields.Select(field => field.Split('=')))
            {
                named.Add(pair[0]);
                yield return new Probe(
                    $"{type.Name}.{pair[0]}", $"offsetof({name}, {pair[1]})", (long)Marshal.OffsetOf(type, pair[0]));
            }

            string[] forgotten =
            [
                .. type.GetFields(BindingFlags.Instance | BindingFlags.Public | BindingFlags.NonPublic)
                    .Select(field => field.Name)
                    .Where(field => !named.Contains(field) && !ReservedName().IsMatch(field)),
            ];
            Assert.True(forgotten.Length == 0, $"{type.Name} has fields that are not in the table: {string.Join(' ', forgotten)}");
        }
    }

    private static long SizeOf(Type type) => (int)typeof(Unsafe).GetMethod(nameof(Unsafe.SizeOf))!
        .MakeGenericMethod(type).Invoke(null, null)!;

    private static long ToLong(object value) => value switch
    {
        Enum number => ToLong(Convert.ChangeType(number, Enum.GetUnderlyingType(number.GetType()), CultureInfo.InvariantCulture)),
        ulong number => unchecked((long)number),
        _ => Convert.ToInt64(value, CultureInfo.InvariantCulture),
    };

    /// <summary>Everything with a value whose documentation starts with a name in C's spelling.</summary>
    private IEnumerable<Probe> ConstantProbes()
    {
        const BindingFlags flags = BindingFlags.Static | BindingFlags.Public | BindingFlags.NonPublic;
        foreach (Type type in Assemblies.SelectMany(assembly => assembly.GetTypes()))
        {
            foreach (FieldInfo field in type.GetFields(flags).Where(field => field.IsLiteral))
            {
                object value = field.GetValue(null)!;
                string? name = type == typeof(Errno) && (Errno)value != Errno.Success
                    ? field.Name
                    : CName($"F:{type.FullName!.Replace('+', '.')}.{field.Name}", type.Assembly);
                if (name is not null && value is not string)
                {
                    yield return new Probe($"{type.Name}.{field.Name}", name, ToLong(value));
                }
            }

            foreach (PropertyInfo property in type.GetProperties(flags).Where(property => property.PropertyType == typeof(int)))
            {
                string? name = CName($"P:{type.FullName!.Replace('+', '.')}.{property.Name}", type.Assembly);
                if (name is not null)
                {
                    yield return new Probe($"{type.Name}.{property.Name}", name, ToLong(property.GetValue(null)!));
                }
            }
        }
    }

    private string? CName(string member, Assembly assembly)
    {
        string path = Path.ChangeExtension(assembly.Location, ".xml");
        if (!_documentation.TryGetValue(path, out XDocument? document))
        {
            document = XDocument.Load(path);
            _documentation.Add(path, document);
        }

        string? summary = document.Root!.Element("members")!.Elements()
            .FirstOrDefault(element => element.Attribute("name")!.Value == member)?.Element("summary")?.Value.Trim();
        if (summary is null || !ConstantName().IsMatch(summary))
        {
            return null;
        }

        // The specification says VIRTQ_, the header of the kernel says VRING_.
        return ConstantName().Match(summary).Value
            .Replace("VIRTQ_DESC_F_", "VRING_DESC_F_", StringComparison.Ordinal)
            .Replace("VIRTQ_AVAIL_F_", "VRING_AVAIL_F_", StringComparison.Ordinal)
            .Replace("VIRTIO_F_INDIRECT_DESC", "VIRTIO_RING_F_INDIRECT_DESC", StringComparison.Ordinal)
            .Replace("VIRTIO_F_EVENT_IDX", "VIRTIO_RING_F_EVENT_IDX", StringComparison.Ordinal);
    }

    /// <summary>Compiles and runs a program that prints each answer; what does not compile is left out.</summary>
    private static Dictionary<int, long> Ask(List<Probe> probes)
    {
        DirectoryInfo directory = Directory.CreateTempSubdirectory("causeway-layout-");
        try
        {
            string source = Path.Combine(directory.FullName, "probe.c");
            string program = Path.Combine(directory.FullName, "probe");
            var left = Enumerable.Range(0, probes.Count).ToList();
            (int status, string errors) = (1, "");
            for (int attempt = 0; attempt < 3 && status != 0; attempt++)
            {
                int[] lineOf = Write(source, probes, left);
                (status, errors) = Run("cc", "-w", "-fmax-errors=0", "-o", program, source);
                var failed = ErrorLine().Matches(errors)
                    .Select(match => int.Parse(match.Groups[1].Value, CultureInfo.InvariantCulture)).ToHashSet();
                left.RemoveAll(index => failed.Contains(lineOf[index]));
            }

            Assert.True(status == 0, errors);
            (status, string output) = Run(program);
            Assert.Equal(0, status);
            return output.Split('\n', StringSplitOptions.RemoveEmptyEntries).Select(line => line.Split(' ')).ToDictionary(
                words => int.Parse(words[0], CultureInfo.InvariantCulture),
                words => long.Parse(words[1], CultureInfo.InvariantCulture));
        }
        finally
        {
            directory.Delete(recursive: true);
        }
    }

    /// <summary>Writes the program, one probe a line.</summary>
    /// <returns>The line of each probe.</returns>
    private static int[] Write(string source, List<Probe> probes, List<int> left)
    {
        var text = new StringBuilder("#define _GNU_SOURCE\n");
        foreach (string header in s_headers)
        {
            text.Append(CultureInfo.InvariantCulture, $"#if __has_include(<{header}>)\n#include <{header}>\n#endif\n");
        }

        text.Append("struct create_out { struct fuse_entry_out entry; struct fuse_open_out open; };\n");
        text.Append("static const struct { int index; long long value; } answers[] = {\n");
        int line = text.ToString().Count(character => character == '\n');
        int[] lineOf = new int[probes.Count];
        foreach (int index in left)
        {
            lineOf[index] = ++line;
            text.Append(CultureInfo.InvariantCulture, $"{{ {index}, (long long)({Value(probes[index].Expression)}) }},\n");
        }

        text.Append("{ -1, 0 } };\nint main(void) { for (int i = 0; answers[i].index >= 0; i++) ");
        text.Append("printf(\"%d %lld\\n\", answers[i].index, answers[i].value); return 0; }\n");
        File.WriteAllText(source, text.ToString());
        return lineOf;
    }

    /// <summary>Feature bits are numbers of bits in the headers, and masks with us.</summary>
    private static string Value(string expression) => expression.StartsWith("VIRTIO_RING_F_", StringComparison.Ordinal) ||
        expression.StartsWith("VIRTIO_F_", StringComparison.Ordinal)
        ? $"1ULL << {expression}"
        : expression;

    private static (int Status, string Output) Run(string program, params string[] arguments)
    {
        var start = new ProcessStartInfo(program, arguments) { RedirectStandardOutput = true, RedirectStandardError = true };
        start.Environment["LC_ALL"] = "C";
        using Process process = Process.Start(start)!;
        Task<string> errors = process.StandardError.ReadToEndAsync();
        string output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        return (process.ExitCode, output + errors.GetAwaiter().GetResult());
    }

    /// <summary>One question to the compiler.</summary>
    private sealed record Probe(string Name, string Expression, long Expected)
    {
        /// <summary>Whether the question is about a constant, a structure, or <c>structure.field</c>.</summary>
        public bool Concerns(string name) => Expression == name || Expression == $"sizeof({name})" ||
            Expression.StartsWith($"offsetof({name}, ", StringComparison.Ordinal) ||
            Expression == $"offsetof({name.Replace(".", ", ", StringComparison.Ordinal)})";
    }
}
