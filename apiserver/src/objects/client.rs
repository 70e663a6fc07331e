//! The verbs for a caller inside this process: the control loop, the scheduler, the server itself.
//!
//! What is asked is said as a URL would be decoded ([`RequestInfo`]), and passes the same seam as what comes over HTTP
//! ([`crate::authz::Authorizer::authorize`]): there is no way around it. It takes no place and has no deadline; who asks here bounds itself.

use weft_api::object::Object;
use weft_api::status::StatusError;
use weft_kinds::{KindRef, Subresource};
use weft_store::Revision;

use super::{
    Binding, DeleteOptions, Deleted, Evicted, ListOptions, ObjectWatch, Objects, Page, Patch,
    Selection, Stored, WatchOptions, WriteOptions,
};
use crate::authz::Authorized;
use crate::caller::Caller;
use crate::request::{ObjectRef, RequestInfo};

/// Who asks, and whom. Made by [`Objects::client`].
#[derive(Clone, Copy)]
pub struct Client<'a> {
    objects: &'a Objects,
    caller: &'a Caller,
}

impl<'a> Client<'a> {
    pub(super) fn new(objects: &'a Objects, caller: &'a Caller) -> Self {
        Self { objects, caller }
    }

    fn on_object(
        &self,
        verb: &'static str,
        object: ObjectRef<'_>,
        subresource: Option<Subresource>,
    ) -> Result<Authorized, StatusError> {
        let request = RequestInfo::of_object(verb, object, subresource);
        let authorizer = self.objects.authorizer();
        authorizer.authorize(self.caller.clone(), request)
    }

    /// `selection` may name the one object that is meant.
    fn on_collection(
        &self,
        verb: &'static str,
        kind: KindRef<'_>,
        namespace: Option<&str>,
        selection: Option<&Selection>,
    ) -> Result<Authorized, StatusError> {
        let name = selection.and_then(|selection| selection.fields.exact("metadata.name"));
        let request = RequestInfo::of_collection(verb, kind, namespace, name);
        let authorizer = self.objects.authorizer();
        authorizer.authorize(self.caller.clone(), request)
    }

    /// # Errors
    /// As [`Objects::get`].
    pub async fn get(
        &self,
        kind: KindRef<'_>,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Stored, StatusError> {
        self.get_at(kind, namespace, name, None).await
    }

    /// # Errors
    /// As [`Objects::get`].
    pub async fn get_at(
        &self,
        kind: KindRef<'_>,
        namespace: Option<&str>,
        name: &str,
        version: Option<Revision>,
    ) -> Result<Stored, StatusError> {
        let asked = self.on_object("get", ObjectRef::new(kind, namespace, name), None)?;
        self.objects.get(&asked, version).await
    }

    /// The Scale of a workload.
    ///
    /// # Errors
    /// As [`Objects::scale`].
    pub async fn scale(
        &self,
        kind: KindRef<'_>,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Object, StatusError> {
        let part = Some(Subresource::Scale);
        let asked = self.on_object("get", ObjectRef::new(kind, namespace, name), part)?;
        self.objects.scale(&asked).await
    }

    /// # Errors
    /// As [`Objects::list`].
    pub async fn list(
        &self,
        kind: KindRef<'_>,
        namespace: Option<&str>,
        options: &ListOptions,
    ) -> Result<Page, StatusError> {
        let asked = self.on_collection("list", kind, namespace, Some(&options.selection))?;
        self.objects.list(&asked, options).await
    }

    /// # Errors
    /// As [`Objects::watch`].
    pub async fn watch(
        &self,
        kind: KindRef<'_>,
        namespace: Option<&str>,
        options: WatchOptions,
    ) -> Result<ObjectWatch, StatusError> {
        let asked = self.on_collection("watch", kind, namespace, Some(&options.selection))?;
        self.objects.watch(&asked, options).await
    }

    /// # Errors
    /// As [`Objects::create`].
    pub async fn create(
        &self,
        kind: KindRef<'_>,
        namespace: Option<&str>,
        object: Object,
        options: &WriteOptions,
    ) -> Result<Object, StatusError> {
        let asked = self.on_collection("create", kind, namespace, None)?;
        self.objects.create(&asked, object, options).await
    }

    /// Replaces an object; where it is follows from the body, which names it.
    ///
    /// # Errors
    /// As [`Objects::update`].
    pub async fn update(
        &self,
        kind: KindRef<'_>,
        namespace: Option<&str>,
        object: Object,
        options: &WriteOptions,
    ) -> Result<Object, StatusError> {
        self.update_part(kind, namespace, None, object, options)
            .await
    }

    /// Replaces what a subresource shows of an object.
    ///
    /// # Errors
    /// As [`Objects::update`].
    pub async fn update_part(
        &self,
        kind: KindRef<'_>,
        namespace: Option<&str>,
        part: Option<Subresource>,
        object: Object,
        options: &WriteOptions,
    ) -> Result<Object, StatusError> {
        let asked = self.on_object(
            "update",
            ObjectRef::new(kind, namespace, object.name()),
            part,
        )?;
        let written = self.objects.update(&asked, object, options).await?;
        Ok(written.object)
    }

    /// # Errors
    /// As [`Objects::patch`].
    pub async fn patch(
        &self,
        object: ObjectRef<'_>,
        part: Option<Subresource>,
        patch: Patch<'_>,
        options: &WriteOptions,
    ) -> Result<Object, StatusError> {
        let asked = self.on_object("patch", object, part)?;
        self.objects.patch(&asked, patch, options).await
    }

    /// # Errors
    /// As [`Objects::bind`].
    pub async fn bind(
        &self,
        namespace: &str,
        binding: Binding<'_>,
        options: &WriteOptions,
    ) -> Result<(), StatusError> {
        let pod = ObjectRef::new(&weft_kinds::POD, Some(namespace), binding.pod);
        let asked = self.on_object("create", pod, Some(Subresource::Binding))?;
        self.objects.bind(&asked, binding, options).await
    }

    /// # Errors
    /// As [`Objects::evict`].
    pub async fn evict(
        &self,
        namespace: &str,
        pod: &str,
        options: &DeleteOptions,
    ) -> Result<Evicted, StatusError> {
        let pod = ObjectRef::new(&weft_kinds::POD, Some(namespace), pod);
        let asked = self.on_object("create", pod, Some(Subresource::Eviction))?;
        self.objects.evict(&asked, options).await
    }

    /// # Errors
    /// As [`Objects::delete`].
    pub async fn delete(
        &self,
        kind: KindRef<'_>,
        namespace: Option<&str>,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<Deleted, StatusError> {
        let asked = self.on_object("delete", ObjectRef::new(kind, namespace, name), None)?;
        self.objects.delete(&asked, options).await
    }

    /// # Errors
    /// As [`Objects::delete_collection`].
    pub async fn delete_collection(
        &self,
        kind: KindRef<'_>,
        namespace: Option<&str>,
        list: &ListOptions,
        options: &DeleteOptions,
    ) -> Result<Page, StatusError> {
        let asked = self.on_collection("deletecollection", kind, namespace, None)?;
        self.objects.delete_collection(&asked, list, options).await
    }
}
